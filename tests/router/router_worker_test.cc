// The router and a worker together, through the worker's own snapshots.
#include <gtest/gtest.h>

#include "router/policy/jsq_tokens.h"
#include "router/router_core.h"
#include "scheduler/types/refusal.h"
#include "scheduler/worker_factory.h"

namespace orrery {
namespace {

constexpr int64_t kQueue = 100;

class RouterWorkerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    WorkerSpec spec;
    spec.options.num_blocks = 64;
    spec.options.block_tokens = 16;
    spec.options.max_context = 512;
    spec.options.max_num_seqs = 4;
    spec.options.max_step_tokens = 64;
    worker_ = *NewWorkerCore(spec);
    router_.OnWorkerUp(
        {.worker = spec.options.worker, .kv_capacity_tokens = 1024, .max_context = 512, .slots = 4}, now_,
        &out_);
  }
  absl::Status Arrive(uint64_t id, int32_t prompt, Time deadline) {
    Submit submit;
    submit.key.request = RequestId{id};
    submit.num_prompt = prompt;
    submit.stop.max_tokens = 4;
    submit.deadline = deadline;
    return router_.OnArrival(submit, 1, now_, &out_);
  }
  // What was dispatched reaches the worker, its refusals and its snapshot the router.
  int Exchange() {
    int refused = 0;
    for (Dispatch& dispatch : out_.dispatch) {
      const SampleKey key = dispatch.submit.key;
      const absl::Status why = worker_->OnArrival(std::move(dispatch.submit), now_);
      if (why.ok()) continue;
      ++refused;
      router_.OnRefused(WorkerId{}, key, why, now_, &out_);
    }
    out_.Clear();
    WorkerState state;
    worker_->State(now_, &state);
    router_.OnWorkerState(state, now_, &out_);
    return refused;
  }

  std::unique_ptr<WorkerCore> worker_;
  RouterCore router_{AdmissionLimits{.max_queue_tokens = kQueue}, std::make_unique<JsqTokensPolicy>()};
  RouterOutput out_;
  Time now_;
};

// The deadline passes between the router and the worker, as it does while a long step runs.
TEST_F(RouterWorkerTest, WhatTheWorkerRefusesLeavesTheQueue) {
  for (uint64_t id = 1; id <= 3; ++id) {
    ASSERT_TRUE(Arrive(id, kQueue, now_ + Duration::Milliseconds(1)).ok()) << "request " << id;
    now_ = now_ + Duration::Milliseconds(2);
    EXPECT_EQ(Exchange(), 1);
    EXPECT_TRUE(router_.idle());
    EXPECT_EQ(router_.queued_tokens(), 0);
    EXPECT_EQ(router_.workers()[0].num_sent, 0);
  }
  ASSERT_TRUE(Arrive(9, kQueue, Time::Never()).ok());
  EXPECT_EQ(Exchange(), 0);
  EXPECT_EQ(router_.workers()[0].sent_tokens, 0);
  EXPECT_EQ(router_.queued_tokens(), kQueue) << "in the worker's own queue";
}

}  // namespace
}  // namespace orrery
