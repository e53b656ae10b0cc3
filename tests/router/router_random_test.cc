// Routers and real WorkerCores with a trivial engine, random events: every accepted sample ends exactly once.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <vector>

#include "router/policy/jsq_tokens.h"
#include "router/router_core.h"
#include "scheduler/base/random.h"
#include "scheduler/worker_factory.h"

namespace orrery {
namespace {

struct TestWorker {
  WorkerInfo info;
  std::unique_ptr<WorkerCore> core;
  std::vector<StepResult> in_flight;
};

class Cluster {
 public:
  explicit Cluster(uint64_t seed)
      : random_(seed), router_({.max_queue_tokens = 400}, std::make_unique<JsqTokensPolicy>()) {
    for (uint32_t i = 0; i < 3; ++i) Start(i);
  }

  void Run(int events) {
    for (int i = 0; i < events; ++i) {
      now_ = now_ + Duration::Microseconds(50);
      const uint64_t dice = random_.Below(100);
      if (dice < 30)
        Arrive();
      else if (dice < 34)
        router_.OnCancel(RequestId{1 + random_.Below(requests_ + 1)}, now_, &out_);
      else if (dice < 35)
        Restart(static_cast<uint32_t>(random_.Below(3)));
      else
        Step(&workers_[static_cast<uint32_t>(random_.Below(3))]);
      Deliver();
    }
    for (int turn = 0; turn < 10000 && !router_.idle(); ++turn) {
      for (auto& [id, worker] : workers_) Step(&worker);
      Deliver();
    }
    EXPECT_TRUE(router_.idle()) << "a request never ended";
    EXPECT_EQ(router_.counters().gap_events, 0u);
    for (const auto& [key, ends] : ends_) EXPECT_EQ(ends, 1) << "request " << Value(key.request);
    EXPECT_EQ(router_.queued_tokens(), 0);
  }
  size_t samples() const { return ends_.size(); }

 private:
  void Start(uint32_t id) {
    WorkerSpec spec;
    spec.options.worker = WorkerId{id};
    spec.options.incarnation = ++incarnations_;
    spec.options.num_blocks = 24;
    spec.options.block_tokens = 4;
    spec.options.max_num_seqs = 4;
    spec.options.max_step_tokens = 32;
    spec.options.max_context = 64;
    TestWorker& worker = workers_[id];
    worker.core = *NewWorkerCore(spec);
    worker.in_flight.clear();
    worker.info = {.worker = WorkerId{id},
                   .incarnation = incarnations_,
                   .kv_capacity_tokens = 96,
                   .max_context = 64,
                   .slots = 4};
    router_.OnWorkerUp(worker.info, now_, &out_);
  }
  void Restart(uint32_t id) { Start(id); }

  void Arrive() {
    Submit submit;
    submit.key.request = RequestId{++requests_};
    submit.num_prompt = static_cast<int32_t>(1 + random_.Below(50));
    submit.stop.max_tokens = static_cast<int32_t>(1 + random_.Below(20));
    submit.tokens = std::make_shared<const std::vector<TokenId>>(submit.num_prompt, 1);
    const auto samples = static_cast<int32_t>(1 + random_.Below(3));
    if (!router_.OnArrival(submit, samples, now_, &out_).ok()) return;
    for (int32_t i = 0; i < samples; ++i) ends_[{RequestId{requests_}, static_cast<uint32_t>(i), 0}] = 0;
  }

  void Step(TestWorker* worker) {
    if (!worker->in_flight.empty()) {
      EXPECT_TRUE(worker->core->OnStepDone(worker->in_flight[0], now_, &events_).ok());
      worker->in_flight.clear();
      Forward(worker);
      WorkerState state;
      worker->core->State(now_, &state);
      router_.OnWorkerState(state, now_, &out_);
      return;
    }
    const StepPlan& plan = worker->core->Plan(now_);
    if (plan.empty()) return;
    StepResult result;
    result.step = plan.step;
    for (const Slice& slice : plan.slices) {
      if (slice.sample)
        result.sampled.push_back({.sequence = slice.sequence, .token = 3, .logprobs = nullptr});
    }
    worker->in_flight.push_back(result);
  }

  void Forward(TestWorker* worker) {
    for (const TokenEvent& event : events_) {
      const bool fresh = router_.OnTokenEvent(worker->info.worker, event, now_, &out_);
      if (fresh && event.finish != FinishReason::kNone) ++ends_[event.key];
    }
    events_.clear();
  }

  void Deliver() {
    while (!out_.dispatch.empty() || !out_.cancel.empty() || !out_.ended.empty()) {
      RouterOutput out = std::move(out_);
      out_.Clear();
      for (const EndedSample& ended : out.ended) ++ends_[ended.key];
      for (Dispatch& dispatch : out.dispatch) {
        const SampleKey key = dispatch.submit.key;
        TestWorker& worker = workers_[Value(dispatch.worker)];
        const absl::Status status = worker.core->OnArrival(std::move(dispatch.submit), now_);
        if (!status.ok()) router_.OnRefused(dispatch.worker, key, status, now_, &out_);
      }
      for (const CancelOrder& order : out.cancel) {
        TestWorker& worker = workers_[Value(order.worker)];
        worker.core->OnCancelRequest(order.request, now_, &events_);
        Forward(&worker);
      }
    }
  }

  RandomStream random_;
  RouterCore router_;
  RouterOutput out_;
  std::map<uint32_t, TestWorker> workers_;
  std::map<SampleKey, int> ends_;
  std::vector<TokenEvent> events_;
  uint64_t requests_ = 0, incarnations_ = 0;
  Time now_;
};

TEST(RouterRandom, EverySampleEndsOnce) {
  size_t samples = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    Cluster cluster(seed);
    cluster.Run(300);
    samples += cluster.samples();
    if (::testing::Test::HasFailure()) break;
  }
  EXPECT_GT(samples, 10000u);
}

}  // namespace
}  // namespace orrery
