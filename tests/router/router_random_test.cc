// Routers and real WorkerCores with a trivial engine, random events: every accepted sample ends exactly once.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <vector>

#include "router/policy/gate_and_route.h"
#include "router/policy/jsq_tokens.h"
#include "router/policy/slo.h"
#include "router/router_core.h"
#include "scheduler/base/random.h"
#include "scheduler/types/refusal.h"
#include "scheduler/worker_factory.h"

namespace orrery {
namespace {

// Prompts and decodes wherever the numbers fall: stays, moves, waits, comes back to where it was.
class WanderingPolicy final : public RoutePolicy {
 public:
  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
              Assignment* assignment) override {
    const size_t n = cluster.workers.size();
    if (n == 0) return;
    for (const Waiting& request : waiting) {
      const uint64_t dice = Value(request.request) * 7 + static_cast<uint64_t>(now.ns / 1000);
      if (dice % 4 == 0) continue;
      assignment->placements.push_back({request.request, cluster.workers[dice % n].worker, dice % 5 != 0});
    }
    for (const Waiting& request : cluster.between) {
      const uint64_t dice = Value(request.request) * 3 + static_cast<uint64_t>(now.ns / 50'000);
      if (dice % 3 == 0) continue;
      assignment->placements.push_back(
          {request.request, dice % 3 == 1 ? request.from : cluster.workers[dice % n].worker});
    }
  }
};

// Two slots beside the prefill on the first worker, three on each other one.
std::unique_ptr<RoutePolicy> GateAndRoute() {
  RoutePlan plan;
  plan.question.classes = {{"a", 25, 10, 1, 1, {}}, {"b", 25, 10, 1, 1, {}}};
  plan.question.slots = 3;
  plan.question.prefill_chunk_tokens = 16;
  plan.answer.x = {0.1, 0.2};
  plan.answer.q_prefill = {1, 0};
  plan.answer.q_decode = {0, 0};
  auto policy = std::make_unique<GateAndRoutePolicy>(GateAndRouteOptions{});
  policy->OnPlanReady(plan);
  return policy;
}

struct TestWorker {
  WorkerInfo info;
  std::unique_ptr<WorkerCore> core;
  std::vector<StepResult> in_flight;
};

class Cluster {
 public:
  Cluster(uint64_t seed, std::unique_ptr<RoutePolicy> policy)
      : random_(seed), router_({.max_queue_tokens = 400}, std::move(policy)) {
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
      else if (dice < 36)
        Lose(static_cast<uint32_t>(random_.Below(3)));
      else
        Step(&workers_[static_cast<uint32_t>(random_.Below(3))]);
      Deliver();
      if (router_.NextWake() <= now_) router_.OnTimer(now_, &out_);
      Deliver();
      CheckBooks();
    }
    for (uint32_t id = 0; id < 3; ++id) {
      if (workers_[id].core == nullptr) Start(id);
    }
    Deliver();
    for (int turn = 0; turn < 10000 && !router_.idle(); ++turn) {
      now_ = now_ + Duration::Microseconds(50);
      for (auto& [id, worker] : workers_) Step(&worker);
      Deliver();
      if (router_.NextWake() <= now_) router_.OnTimer(now_, &out_);
      Deliver();
    }
    EXPECT_TRUE(router_.idle()) << "a request never ended";
    EXPECT_EQ(router_.counters().gap_events, 0u);
    for (const auto& [key, ends] : ends_) EXPECT_EQ(ends, 1) << "request " << Value(key.request);
    EXPECT_EQ(router_.queued_tokens(), 0);
    EXPECT_EQ(router_.num_between(), 0);
  }
  size_t samples() const { return ends_.size(); }
  uint64_t handed_over() const { return router_.counters().handed_over; }
  uint64_t shed() const { return router_.counters().shed; }

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
  void Lose(uint32_t id) {
    workers_[id].core = nullptr;
    router_.OnWorkerDown(WorkerId{id}, now_, &out_);
  }

  // What the router believes is on each worker is there, and the other way round.
  void CheckBooks() {
    for (const WorkerLoad& load : router_.workers()) {
      const WorkerCore& core = *workers_[Value(load.worker)].core;
      EXPECT_EQ(load.num_bound, core.num_running() + core.num_waiting()) << "worker " << Value(load.worker);
      EXPECT_LE(load.num_prefills, load.num_bound);
      EXPECT_GE(load.num_prefills, 0);
      EXPECT_TRUE(core.CheckInvariants().ok()) << core.CheckInvariants();
    }
  }

  void Arrive() {
    Submit submit;
    submit.key.request = RequestId{++requests_};
    submit.num_prompt = static_cast<int32_t>(1 + random_.Below(50));
    submit.stop.max_tokens = static_cast<int32_t>(1 + random_.Below(20));
    submit.tokens = std::make_shared<const std::vector<TokenId>>(submit.num_prompt, 1);
    submit.traffic_class = static_cast<uint32_t>(random_.Below(3));
    if (random_.Below(8) == 0) submit.deadline = now_ + Duration::Microseconds(50 * random_.Below(60));
    submit.priority = static_cast<int32_t>(requests_ % 3) - 1;
    submit.tenant = static_cast<uint32_t>(requests_ % 5);
    if (requests_ % 4 > 0)
      submit.slo.ttft = Duration::Microseconds(static_cast<int64_t>(requests_ % 4) * 400);
    if (requests_ % 2 > 0) submit.slo.tpot = Duration::Microseconds(120);
    const auto samples = static_cast<int32_t>(1 + random_.Below(3));
    if (!router_.OnArrival(submit, samples, now_, &out_).ok()) return;
    for (int32_t i = 0; i < samples; ++i) ends_[{RequestId{requests_}, static_cast<uint32_t>(i), 0}] = 0;
  }

  void Step(TestWorker* worker) {
    if (worker->core == nullptr) return;
    if (worker->core->NextWake() <= now_) {
      worker->core->OnTimer(now_, &events_);
      Report(worker);
    }
    if (!worker->in_flight.empty()) {
      worker->in_flight[0].end = now_;
      EXPECT_TRUE(worker->core->OnStepDone(worker->in_flight[0], now_, &events_).ok());
      worker->in_flight.clear();
      return Report(worker);
    }
    const StepPlan& plan = worker->core->Plan(now_);
    if (plan.empty()) return Report(worker);
    StepResult result;
    result.step = plan.step;
    result.start = now_;
    for (const Slice& slice : plan.slices) {
      if (slice.sample)
        result.sampled.push_back({.sequence = slice.sequence, .token = 3, .logprobs = nullptr});
    }
    worker->in_flight.push_back(result);
  }

  void Report(TestWorker* worker) {
    Forward(worker);
    WorkerState state;
    worker->core->State(now_, &state);
    router_.OnWorkerState(state, now_, &out_);
  }
  void Forward(TestWorker* worker) {
    for (const TokenEvent& event : events_) {
      const bool fresh = router_.OnTokenEvent(worker->info.worker, event, now_, &out_);
      if (!fresh) continue;
      const SampleKey key = {event.key.request, event.key.sample, 0};
      // Whoever made them: one after the other.
      if (event.token >= 0) {
        EXPECT_EQ(event.index, tokens_[key]++);
      }
      if (event.finish != FinishReason::kNone) ++ends_[key];
    }
    events_.clear();
  }

  void Deliver() {
    while (!out_.empty()) {
      RouterOutput out = std::move(out_);
      out_.Clear();
      for (const EndedSample& ended : out.ended) {
        ++ends_[{ended.key.request, ended.key.sample, 0}];
        const auto refusal = RefusalOf(ended.why);
        if (!refusal.has_value() || refusal->reason != RefusalReason::kShed) continue;
        EXPECT_EQ(Value(ended.key.request) % 3, 0u) << "only a negative priority may be shed";
        EXPECT_EQ(ended.key.attempt, 0u) << "a worker had it before";
      }
      for (const LeaveOrder& order : out.leave) {
        TestWorker& worker = workers_[Value(order.worker)];
        if (worker.core == nullptr) continue;
        worker.core->OnCancel(order.sample, now_, &events_);
        Forward(&worker);
      }
      for (Dispatch& dispatch : out.dispatch) {
        const SampleKey key = dispatch.submit.key;
        TestWorker& worker = workers_[Value(dispatch.worker)];
        if (worker.core == nullptr) continue;
        const bool moved = dispatch.submit.kv_source.has_value();
        const absl::Status status = worker.core->OnArrival(std::move(dispatch.submit), now_);
        // What a worker has begun another one takes, unless time is up.
        if (!status.ok() && moved) {
          EXPECT_EQ(RefusalOf(status)->reason, RefusalReason::kDeadline) << status;
        }
        if (!status.ok()) router_.OnRefused(dispatch.worker, key, status, now_, &out_);
      }
      for (const CancelOrder& order : out.cancel) {
        TestWorker& worker = workers_[Value(order.worker)];
        if (worker.core == nullptr) continue;
        worker.core->OnCancelRequest(order.request, now_, &events_);
        Forward(&worker);
      }
    }
  }

  RandomStream random_;
  RouterCore router_;
  RouterOutput out_;
  std::map<uint32_t, TestWorker> workers_;
  std::map<SampleKey, int> ends_, tokens_;  // by request and sample
  std::vector<TokenEvent> events_;
  uint64_t requests_ = 0, incarnations_ = 0;
  Time now_;
};

struct Histories {
  size_t samples = 0;
  uint64_t handed_over = 0, shed = 0;
};

template <typename MakePolicy>
Histories RunHistories(uint64_t count, MakePolicy make) {
  Histories all;
  for (uint64_t seed = 1; seed <= count; ++seed) {
    SCOPED_TRACE(seed);
    Cluster cluster(seed, make());
    cluster.Run(300);
    all.samples += cluster.samples();
    all.handed_over += cluster.handed_over();
    all.shed += cluster.shed();
    if (::testing::Test::HasFailure()) break;
  }
  return all;
}

TEST(RouterRandom, EverySampleEndsOnce) {
  const Histories all = RunHistories(200, [] { return std::make_unique<JsqTokensPolicy>(); });
  EXPECT_GT(all.samples, 10000u);
  EXPECT_EQ(all.handed_over, 0u);
}

TEST(RouterRandom, EverySampleEndsOnceAlsoWhereSomeAreShed) {
  const Histories all =
      RunHistories(100, [] { return std::make_unique<SloPolicy>(SloOptions{.wait_ms = 1}); });
  EXPECT_GT(all.samples, 5000u);
  EXPECT_GT(all.shed, 50u);
}

TEST(RouterRandom, EverySampleEndsOnceAlsoWhereItMovesBetweenPrefillAndDecode) {
  const Histories wandering = RunHistories(200, [] { return std::make_unique<WanderingPolicy>(); });
  EXPECT_GT(wandering.handed_over, 2000u);
  const Histories gated = RunHistories(100, GateAndRoute);
  EXPECT_GT(gated.handed_over, 500u);
}

}  // namespace
}  // namespace orrery
