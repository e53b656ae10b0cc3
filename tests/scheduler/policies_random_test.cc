// Every registered batch policy on small random instances around a real WorkerCore: memory is never exceeded,
// no request is lost, duplicated or starved, and after every step all invariants of the worker hold. Time is
// virtual: a step takes as long as a cost model says, idle time is skipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/cost/step_cost.h"
#include "scheduler/policy/registry.h"
#include "scheduler/worker_core.h"
#include "scheduler/worker_factory.h"
#include "tests/scheduler/shadow_engine.h"

namespace orrery {
namespace {

constexpr int32_t kVocab = 11;

struct Totals {
  uint64_t finished = 0, preemptions = 0, repairs = 0, fallbacks = 0, prefix_hits = 0;
};

class Instance {
 public:
  Instance(const std::string& policy, uint64_t seed, int depth) : random_(seed, 3) {
    WorkerSpec spec;
    spec.scheduler = policy;
    spec.predictor = Pick(
        {"request-bound", "interval:low=1,high=3", "interval:alpha=0.5", "empirical:window=8,min_own=2"});
    spec.cost =
        "linear:alpha_decode=2,per_seq=0.1,per_kv_token=0.01,alpha_prefill=3,per_token=0.2,per_token_sq=0";
    WorkerOptions& options = spec.options;
    options.block_tokens = 1 << random_.Below(4);
    options.num_blocks = static_cast<int32_t>(40 / options.block_tokens + 1 + random_.Below(12));
    options.max_num_seqs = static_cast<int32_t>(1 + random_.Below(8));
    options.max_step_tokens = static_cast<int32_t>(options.max_num_seqs + random_.Below(24));
    options.max_context = 40;
    options.vocab_size = kVocab;
    options.max_in_flight = depth;
    options.prefix_cache = random_.Below(3) != 0;
    core_ = *NewWorkerCore(spec);
    cost_ = *ParseStepCost(spec.cost);
    engine_ = std::make_unique<ShadowEngine>(options.num_blocks, options.block_tokens, options.max_num_seqs,
                                             kVocab);
    for (int i = 0; i < 8; ++i) arrivals_.push_back(Arrival());
    std::sort(arrivals_.begin(), arrivals_.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
  }

  // What went wrong; empty: nothing.
  std::string Run() {
    // Every request can run alone in at most 40 + 40 steps, and none may be passed over forever.
    for (int turn = 0; turn < 20000; ++turn) {
      while (next_ < arrivals_.size() && arrivals_[next_].first <= now_) {
        Submit& submit = arrivals_[next_++].second;
        if (submit.deadline <= now_) submit.deadline = Time::Never();  // would be refused
        deadlines_[submit.key] = submit.deadline;
        if (!core_->OnArrival(submit, now_).ok()) return "a request was refused";
      }
      if (core_->NextWake() <= now_) core_->OnTimer(now_, &events_);
      if (Status status = Check(); !status.empty()) return status;
      Duration step = Duration::Nanoseconds(0);
      while (core_->can_plan()) {
        const StepPlan& plan = core_->Plan(now_);
        if (plan.empty()) break;
        step = std::max(step, cost_->Predict(ShapeOf(plan)));
        engine_->Launch(plan);
        if (Status status = Check(); !status.empty()) return status;
      }
      if (!engine_->busy()) {
        if (next_ == arrivals_.size() && core_->idle()) return Done();
        const Time wake =
            std::min(core_->NextWake(), next_ < arrivals_.size() ? arrivals_[next_].first : Time::Never());
        if (wake.is_never()) return "work is left and nothing will happen";
        now_ = std::max(now_, wake);
        continue;
      }
      now_ = now_ + step;
      StepResult result = engine_->Finish();
      result.start = Time{} + ((now_ - Time{}) - step);
      result.end = now_;
      if (!core_->OnStepDone(result, now_, &events_).ok()) return "a step was refused";
      if (Status status = Check(); !status.empty()) return status;
    }
    return "somebody starves";
  }

  const WorkerCounters& counters() const { return core_->counters(); }

 private:
  using Status = std::string;

  const char* Pick(std::initializer_list<const char*> names) {
    return names.begin()[random_.Below(names.size())];
  }

  std::pair<Time, Submit> Arrival() {
    Submit submit;
    submit.key.request = RequestId{++requests_};
    submit.num_prompt = static_cast<int32_t>(1 + random_.Below(20));
    submit.stop.max_tokens = static_cast<int32_t>(1 + random_.Below(20));
    submit.stop.stop_ids = {static_cast<TokenId>(random_.Below(kVocab))};
    submit.stop.min_tokens = static_cast<int32_t>(random_.Below(10));
    submit.tenant = static_cast<uint32_t>(random_.Below(3));
    submit.application = static_cast<uint32_t>(random_.Below(4));
    submit.priority = static_cast<int32_t>(random_.Below(3)) - 1;
    if (random_.Below(2) == 0) {
      submit.slo = {Duration::Milliseconds(static_cast<int64_t>(random_.Below(100))),
                    Duration::Milliseconds(static_cast<int64_t>(random_.Below(20)))};
    }
    std::vector<TokenId> tokens(static_cast<size_t>(submit.num_prompt));
    const uint64_t stream = random_.Below(2);
    for (size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = static_cast<TokenId>(UniformAt(stream, i) * kVocab);
    submit.tokens = std::make_shared<const std::vector<TokenId>>(std::move(tokens));
    expected_[submit.key] = ReferenceRun(submit, kVocab);
    const Time at = Time{} + Duration::Microseconds(static_cast<int64_t>(random_.Below(60000)));
    // From hopeless to one that nothing misses.
    if (random_.Below(3) == 0) {
      submit.deadline = at + Duration::Milliseconds(static_cast<int64_t>(1) << random_.Below(14));
    }
    return {at, submit};
  }

  Status Check() {
    if (const absl::Status status = core_->CheckInvariants(); !status.ok()) return status.ToString();
    if (!engine_->errors().empty()) return engine_->errors().front();
    for (const TokenEvent& event : events_) {
      if (event.token >= 0) received_[event.key].push_back(event.token);
      if (event.finish == FinishReason::kNone) continue;
      if (++ends_[event.key] > 1) return "a request ended twice";
      const ReferenceOutput& expected = expected_[event.key];
      if (event.finish == FinishReason::kDeadline) {
        const std::vector<TokenId>& received = received_[event.key];
        if (event.at < deadlines_[event.key]) return "ended before its deadline";
        if (received.size() > expected.tokens.size() ||
            !std::equal(received.begin(), received.end(), expected.tokens.begin())) {
          return "wrong output before a deadline";
        }
        continue;
      }
      if (event.finish != expected.finish || received_[event.key] != expected.tokens) return "wrong output";
    }
    events_.clear();
    return "";
  }

  Status Done() {
    if (ends_.size() != arrivals_.size()) return "a request was lost";
    WorkerState state;
    core_->State(now_, &state);
    return state.blocks_free + state.blocks_cached == state.blocks_total ? "" : "blocks leaked";
  }

  RandomStream random_;
  std::unique_ptr<WorkerCore> core_;
  std::unique_ptr<StepCostModel> cost_;
  std::unique_ptr<ShadowEngine> engine_;
  std::vector<std::pair<Time, Submit>> arrivals_;
  size_t next_ = 0;
  std::map<SampleKey, ReferenceOutput> expected_;
  std::map<SampleKey, Time> deadlines_;
  std::map<SampleKey, std::vector<TokenId>> received_;
  std::map<SampleKey, int> ends_;
  std::vector<TokenEvent> events_;
  uint64_t requests_ = 0;
  Time now_;
};

Totals RunMany(const std::string& policy, int instances, int depth) {
  Totals totals;
  for (int i = 0; i < instances; ++i) {
    Instance instance(policy, static_cast<uint64_t>(i) + 1, depth);
    const std::string wrong = instance.Run();
    EXPECT_EQ(wrong, "") << policy << ", instance " << i + 1 << ", depth " << depth;
    if (!wrong.empty()) break;
    const WorkerCounters& counters = instance.counters();
    totals.finished += counters.accepted;
    totals.preemptions += counters.preemptions;
    totals.repairs += counters.repairs;
    totals.fallbacks += counters.fallbacks;
    totals.prefix_hits += counters.prefix_hit_tokens;
  }
  return totals;
}

class EveryPolicy : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryPolicy, KeepsItsPromisesOnSmallInstances) {
  const Totals totals = RunMany(GetParam(), 2000, 1);
  EXPECT_EQ(totals.finished, 16000u);
  EXPECT_EQ(totals.repairs, 0u) << "it promised blocks, rows or tokens that were not there";
  EXPECT_EQ(totals.fallbacks, 0u) << "it left work idle without asking to be woken";
  EXPECT_GT(totals.prefix_hits, 1000u);
  RecordProperty("preemptions", std::to_string(totals.preemptions));
}

TEST_P(EveryPolicy, AlsoWithTwoStepsInFlight) { EXPECT_EQ(RunMany(GetParam(), 300, 2).finished, 2400u); }

std::vector<std::string> BatchPolicyNames() {
  std::vector<std::string> names;
  for (const PolicyInfo& info : SchedulerPolicies()) {
    if (info.kind == "batch") names.emplace_back(info.name);
  }
  names.push_back("mc-sf:skip=1,aging=0,protection=0.1");
  return names;
}

INSTANTIATE_TEST_SUITE_P(Registered, EveryPolicy, ::testing::ValuesIn(BatchPolicyNames()),
                         [](const auto& info) {
                           std::string name;
                           for (const char c : info.param)
                             name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           return name;
                         });

}  // namespace
}  // namespace orrery
