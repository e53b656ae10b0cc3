// Steady decoding must not allocate: counted by replacing the global operator new of this executable.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "scheduler/kv/lec.h"
#include "scheduler/worker_factory.h"

namespace {
std::atomic<long> allocations{0};
}

// Not inlined: the compiler would take the pair of new and free for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace orrery {
namespace {

TEST(WorkerCoreAllocation, SteadyDecodingAllocatesNothing) {
  for (const int depth : {1, 2}) {
    WorkerSpec spec;
    spec.options.num_blocks = 4096;
    spec.options.max_in_flight = depth;
    auto core = *NewWorkerCore(spec);
    std::vector<TokenEvent> events;
    for (uint64_t i = 0; i < 64; ++i) {
      Submit submit;
      submit.key.request = RequestId{i};
      submit.num_prompt = 16;
      submit.stop.max_tokens = 800;
      submit.tokens = std::make_shared<const std::vector<TokenId>>(16, static_cast<TokenId>(i));
      ASSERT_TRUE(core->OnArrival(std::move(submit), Time{}).ok());
    }
    std::vector<const StepPlan*> flying;
    StepResult result;
    WorkerState state;
    const auto turn = [&] {
      while (core->can_plan()) flying.push_back(&core->Plan(Time{}));
      const StepPlan& plan = *flying.front();
      result.Clear();
      result.step = plan.step;
      for (const Slice& slice : plan.slices) {
        if (!slice.sample) continue;
        result.sampled.emplace_back();
        result.sampled.back().sequence = slice.sequence;
        result.sampled.back().token = 5;
      }
      flying.erase(flying.begin());
      events.clear();
      ASSERT_TRUE(core->OnStepDone(result, Time{}, &events).ok());
      core->State(Time{}, &state);
    };
    for (int i = 0; i < 520; ++i) turn();
    // Tables and names of blocks grow by doubling: from 512 tokens on, nothing grows before 1024.
    const long before = allocations;
    for (int i = 0; i < 200; ++i) turn();
    EXPECT_EQ(allocations - before, 0) << "depth " << depth;
    EXPECT_EQ(events.size(), 64u);
  }
}

TEST(LecAllocation, NothingOnceEveryBlockWasSeen) {
  constexpr int32_t kBlocks = 512;
  LecEviction lec({});
  Time now;
  const auto turn = [&](uint32_t hits) {
    for (int32_t id = kBlocks; id-- > 0;) {
      now = now + Duration::Milliseconds(id % 7);
      lec.Hit(BlockId{id}, hits, now);
      const bool first = id % 8 == 0;  // of a chain of eight
      lec.Insert({BlockId{id}, id % 8, hits, first ? kNoBlock : BlockId{id - 1}, now});
    }
    for (int32_t id = 0; id < 64; ++id) lec.Remove(BlockId{id});
    for (int32_t i = 64; i < kBlocks; ++i) lec.Evict();
  };
  turn(1);
  const long before = allocations;
  for (uint32_t hits = 2; hits < 50; ++hits) turn(hits);
  EXPECT_EQ(allocations - before, 0);
}

}  // namespace
}  // namespace orrery
