// A step allocates nothing: every call of operator new on any thread between Launch and the end of Wait is
// counted, for decodes, chunks and mixed steps, with and without penalties. (Log-probabilities are handed out
// in memory of their own and are the exception.)
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <vector>

#include "engine/cpu_engine.h"
#include "tests/engine/plan_driver.h"
#include "tests/engine/test_model.h"

namespace {
std::atomic<bool> counting{false};
std::atomic<int64_t> allocations{0};

void* CountedAllocate(std::size_t bytes, std::size_t alignment) {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
  void* data = nullptr;
  if (posix_memalign(&data, std::max(alignment, sizeof(void*)), std::max<std::size_t>(bytes, 1)) != 0) {
    throw std::bad_alloc();
  }
  return data;
}
}  // namespace

void* operator new(std::size_t bytes) { return CountedAllocate(bytes, alignof(std::max_align_t)); }
void* operator new[](std::size_t bytes) { return CountedAllocate(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t a) {
  return CountedAllocate(bytes, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t bytes, std::align_val_t a) {
  return CountedAllocate(bytes, static_cast<std::size_t>(a));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return CountedAllocate(bytes, alignof(std::max_align_t));
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return CountedAllocate(bytes, alignof(std::max_align_t));
}
void* operator new(std::size_t bytes, std::align_val_t a, const std::nothrow_t&) noexcept {
  return CountedAllocate(bytes, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t bytes, std::align_val_t a, const std::nothrow_t&) noexcept {
  return CountedAllocate(bytes, static_cast<std::size_t>(a));
}
void operator delete(void* data) noexcept { std::free(data); }
void operator delete[](void* data) noexcept { std::free(data); }
void operator delete(void* data, std::size_t) noexcept { std::free(data); }
void operator delete[](void* data, std::size_t) noexcept { std::free(data); }
void operator delete(void* data, std::align_val_t) noexcept { std::free(data); }
void operator delete[](void* data, std::align_val_t) noexcept { std::free(data); }
void operator delete(void* data, std::size_t, std::align_val_t) noexcept { std::free(data); }
void operator delete[](void* data, std::size_t, std::align_val_t) noexcept { std::free(data); }

namespace orrery {
namespace {

// Counts inside the engine's two calls only.
class CountingExecutor final : public Executor {
 public:
  explicit CountingExecutor(Executor& executor) : executor_(executor) {}
  const EngineLimits& limits() const override { return executor_.limits(); }
  absl::Status Launch(const StepPlan& plan) override {
    counting = true;
    absl::Status status = executor_.Launch(plan);
    counting = false;
    return status;
  }
  absl::Status Wait(StepId step, StepResult* result) override {
    counting = true;
    absl::Status status = executor_.Wait(step, result);
    counting = false;
    return status;
  }
  int max_in_flight() const override { return executor_.max_in_flight(); }

 private:
  Executor& executor_;
};

class AllocationTest : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(All, AllocationTest, ::testing::Values(DType::kF32, DType::kBF16));

TEST_P(AllocationTest, StepsAllocateNothing) {
  testing::TempDir dir;
  nlohmann::json config = testing::TinyConfig("qwen3");
  config["tie_word_embeddings"] = true;
  testing::WriteModel(dir.path(), config, testing::RandomTensors(config, 1), GetParam());
  EngineOptions options;
  options.model_dir = dir.path();
  options.num_threads = 2;
  options.kv_cache_tokens = 8192;
  options.max_num_seqs = 16;
  options.max_step_tokens = 128;
  auto engine = LoadCpuEngine(options);
  ASSERT_TRUE(engine.ok()) << engine.status();
  CountingExecutor counted(**engine);
  testing::PlanDriver driver(counted);
  std::vector<std::pair<int, int32_t>> prefill, decode, mixed;
  for (int i = 0; i < 16; ++i) {
    Sampling sampling;
    sampling.temperature = i % 2 == 0 ? 0.0f : 0.8f;
    sampling.top_p = i % 3 == 0 ? 0.9f : 1.0f;
    sampling.repetition_penalty = i % 4 == 0 ? 1.2f : 1.0f;
    const int handle = driver.Add(std::vector<TokenId>(60, 3 + i), 100, sampling);
    prefill.emplace_back(handle, 8);
    decode.emplace_back(handle, 1);
  }
  // The first step admits and grows the result: the memory of a sequence is taken then, and only then.
  ASSERT_TRUE(driver.Step(prefill).ok());
  allocations = 0;
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(driver.Step(prefill).ok());
  EXPECT_EQ(allocations, 0) << "prefill";
  ASSERT_TRUE(driver.Step(prefill).ok());  // the first samples: the result's own buffer grows once
  allocations = 0;
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(driver.Step(decode).ok());
  EXPECT_EQ(allocations, 0) << "decode";
  driver.Preempt(3);
  mixed = decode;
  mixed[3].second = 50;
  ASSERT_TRUE(driver.Step(mixed).ok());
  EXPECT_EQ(allocations, 0) << "mixed";
}

}  // namespace
}  // namespace orrery
