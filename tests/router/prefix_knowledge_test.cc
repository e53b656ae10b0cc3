// What the router knows of its workers' prefix caches, against what the workers find there.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "router/policy/cache_aware.h"
#include "router/router_core.h"
#include "scheduler/base/random.h"
#include "scheduler/kv/block_hash.h"
#include "scheduler/worker_factory.h"

namespace orrery {
namespace {

constexpr uint64_t kKey = 77;
constexpr int32_t kBlock = 16;

class PrefixKnowledge : public ::testing::Test {
 protected:
  void SetUp() override {
    for (uint32_t w = 0; w < 2; ++w) Start(w, 1);
  }
  void Start(uint32_t w, uint64_t incarnation, uint64_t key = kKey) {
    WorkerSpec spec;
    spec.options.worker = WorkerId{w};
    spec.options.incarnation = incarnation;
    spec.options.num_blocks = 40;
    spec.options.max_context = 400;
    spec.options.max_num_seqs = 4;
    spec.options.hash_key = key;
    cores_[w] = *NewWorkerCore(spec);
    router_.OnWorkerUp({.worker = WorkerId{w},
                        .incarnation = incarnation,
                        .kv_capacity_tokens = 640,
                        .max_context = 400,
                        .slots = 4,
                        .block_tokens = kBlock,
                        .hash_key_id = HashKeyId(key)},
                       now_, &out_);
    Carry();
  }
  // A prompt: one of few beginnings, and an end of its own.
  std::shared_ptr<const std::vector<TokenId>> Prompt(int family, int shared, int own) {
    auto ids = std::make_shared<std::vector<TokenId>>();
    for (int i = 0; i < shared; ++i) ids->push_back(1000 * (family + 1) + i);
    for (int i = 0; i < own; ++i) ids->push_back(static_cast<TokenId>(100'000 + random_.Below(1 << 20)));
    return ids;
  }
  void Arrive(std::shared_ptr<const std::vector<TokenId>> ids) {
    Submit submit;
    submit.key.request = RequestId{++last_};
    submit.num_prompt = static_cast<int32_t>(ids->size());
    submit.tokens = std::move(ids);
    submit.stop.max_tokens = 3;
    ASSERT_TRUE(router_.OnArrival(submit, 1, now_, &out_).ok());
  }
  // What the router orders reaches the workers.
  void Carry() {
    while (!out_.empty()) {
      RouterOutput out = std::exchange(out_, {});
      for (const WorkerId worker : out.ask_prefixes) {
        ++asked_;
        cores_[Value(worker)]->TellPrefixes();
      }
      for (Dispatch& dispatch : out.dispatch) {
        last_worker_ = Value(dispatch.worker);
        ASSERT_TRUE(cores_[last_worker_]->OnArrival(std::move(dispatch.submit), now_).ok());
      }
    }
  }
  // One step of a worker. A snapshot that is lost reaches nobody.
  void Step(uint32_t w, bool lose_snapshot) {
    WorkerCore& core = *cores_[w];
    std::vector<TokenEvent> events;
    if (core.has_work()) {
      const StepPlan& plan = core.Plan(now_);
      StepResult result;
      result.step = plan.step;
      for (const Slice& slice : plan.slices) {
        if (!slice.sample) continue;
        SampledToken& sampled = result.sampled.emplace_back();
        sampled.sequence = slice.sequence;
        sampled.token = static_cast<TokenId>(random_.Below(1 << 20));
      }
      now_ = now_ + Duration::Milliseconds(1);
      if (!plan.empty()) {
        ASSERT_TRUE(core.OnStepDone(result, now_, &events).ok());
      }
    }
    for (const TokenEvent& event : events) router_.OnTokenEvent(WorkerId{w}, event, now_, &out_);
    WorkerState state;
    core.State(now_, &state);
    if (!lose_snapshot) router_.OnWorkerState(state, now_, &out_);
    Carry();
  }
  // The blocks of a prompt that the router takes a worker to have, as many as an admission can use.
  int32_t Known(const std::vector<TokenId>& ids, uint32_t w) {
    Waiting waiting;
    waiting.prompt_ids = ids;
    std::vector<Hash128> names;
    NameBlocks(waiting, kKey, kBlock, &names);
    const auto matched = static_cast<int32_t>(policy_->prefixes()->Matched(names, WorkerId{w}));
    return std::min(matched, (static_cast<int32_t>(ids.size()) - 1) / kBlock);
  }

  RandomStream random_{5};
  CacheAwarePolicy* policy_ = new CacheAwarePolicy(CacheAwareOptions{});  // the router's
  RouterCore router_{{}, std::unique_ptr<RoutePolicy>(policy_), {}, {}, kKey};
  std::unique_ptr<WorkerCore> cores_[2];
  RouterOutput out_;
  Time now_;
  uint64_t last_ = 0;
  uint32_t last_worker_ = 0;
  int asked_ = 0;
};

// Prompts one after the other, through a pool that evicts all the time: what the router knew before each is
// what the worker then found.
TEST_F(PrefixKnowledge, IsWhatTheWorkersFind) {
  int hits = 0, evicted = 0;
  for (int i = 0; i < 2000; ++i) {
    const auto ids = Prompt(static_cast<int>(random_.Below(4)), 16 * static_cast<int>(random_.Below(6)),
                            1 + static_cast<int>(random_.Below(90)));
    int32_t known[2] = {Known(*ids, 0), Known(*ids, 1)};
    Arrive(ids);
    Carry();
    const uint32_t w = last_worker_;
    const uint64_t before = cores_[w]->counters().prefix_hit_tokens;
    while (!router_.idle()) Step(w, false);
    ASSERT_EQ(cores_[w]->counters().prefix_hit_tokens - before, static_cast<uint64_t>(known[w] * kBlock))
        << i;
    hits += known[w] > 0;
    evicted = static_cast<int>(cores_[w]->counters().evicted_blocks);
  }
  EXPECT_GT(hits, 500);
  EXPECT_GT(evicted, 500);
  EXPECT_EQ(asked_, 2);
  EXPECT_EQ(router_.counters().prefix_gaps, 0u);
}

// Whatever snapshots are lost, a while after the last loss it knows again.
TEST_F(PrefixKnowledge, ComesBackAfterALostSnapshot) {
  int gaps = 0;
  for (int i = 0; i < 300; ++i) {
    Arrive(Prompt(static_cast<int>(random_.Below(3)), 64, 1 + static_cast<int>(random_.Below(40))));
    Carry();
    const uint32_t w = last_worker_;
    while (!router_.idle()) Step(w, random_.Below(3) == 0);
    for (uint32_t each = 0; each < 2; ++each) {
      Step(each, false);
      now_ = now_ + Duration::Seconds(2);  // an answer that was lost is asked for again
      Step(each, false);
      Step(each, false);
    }
    gaps = static_cast<int>(router_.counters().prefix_gaps);
    const auto ids = Prompt(static_cast<int>(random_.Below(3)), 64, 1);
    const int32_t known[2] = {Known(*ids, 0), Known(*ids, 1)};
    Arrive(ids);
    Carry();
    const uint32_t at = last_worker_;
    const uint64_t before = cores_[at]->counters().prefix_hit_tokens;
    while (!router_.idle()) Step(at, false);
    ASSERT_EQ(cores_[at]->counters().prefix_hit_tokens - before, static_cast<uint64_t>(known[at] * kBlock))
        << i;
  }
  EXPECT_GT(gaps, 10);
  EXPECT_GE(asked_, 2 + gaps);
}

TEST_F(PrefixKnowledge, EndsWithTheIncarnation) {
  const auto ids = Prompt(0, 64, 5);
  Arrive(ids);
  Carry();
  const uint32_t w = last_worker_;
  while (!router_.idle()) Step(w, false);
  EXPECT_EQ(Known(*ids, w), 4);
  WorkerState old;
  cores_[w]->State(now_, &old);
  old.prefix_events = {{{1, 2}, true}};
  old.prefixes_anew = true;
  ++old.prefix_event_sequence;
  old.sequence_number += 10;
  Start(w, 2);
  EXPECT_EQ(Known(*ids, w), 0);
  router_.OnWorkerState(old, now_, &out_);
  EXPECT_EQ(policy_->prefixes()->HoldersOf({1, 2}).size(), 0u);
}

// More blocks than it has: a worker that tells so is not believed, and the router's memory stays bounded.
TEST_F(PrefixKnowledge, IsBoundedByWhatAWorkerCanHold) {
  WorkerState state;
  cores_[0]->State(now_, &state);
  for (uint64_t name = 1; name <= 41; ++name) state.prefix_events.push_back({{name, 0}, true});
  state.prefix_event_sequence += state.prefix_events.size();
  ASSERT_TRUE(state.prefixes_anew);
  WorkerState fits = state;
  fits.prefix_events.pop_back();
  --fits.prefix_event_sequence;
  router_.OnWorkerState(fits, now_, &out_);
  EXPECT_EQ(policy_->prefixes()->size(), 40);
  EXPECT_TRUE(router_.workers()[0].tells_prefixes);
  ++state.sequence_number;
  router_.OnWorkerState(state, now_, &out_);
  EXPECT_EQ(policy_->prefixes()->size(), 0);
  EXPECT_FALSE(router_.workers()[0].tells_prefixes);
}

// Names under another key mean nothing here: the router asks for none and goes by what it sends.
TEST_F(PrefixKnowledge, IsAGuessWithoutTheWorkersKey) {
  Start(0, 2, kKey + 1);
  Start(1, 2, kKey + 1);
  EXPECT_EQ(asked_, 2) << "at the first start";
  EXPECT_FALSE(router_.workers()[0].tells_prefixes);
  const auto ids = Prompt(0, 64, 5);
  Arrive(ids);
  EXPECT_EQ(Known(*ids, 0) + Known(*ids, 1), 4) << "sent, not yet computed";
}

}  // namespace
}  // namespace orrery
