// Workers that are killed, hang, come back and lose what they say, at random moments under load: every
// request is answered once, with the tokens that a single worker would have made, none missing and none
// twice.
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "router/policy/jsq_tokens.h"
#include "router/router_core.h"
#include "scheduler/base/random.h"
#include "scheduler/worker_factory.h"

namespace orrery {
namespace {

enum class Fault { kKill, kHang, kLoseToken, kLoseEnd };

constexpr uint32_t kWorkers = 4;
constexpr Duration kTurn = Duration::Microseconds(50);
constexpr Duration kProgressTimeout = Duration::Milliseconds(5);

// Whoever makes it.
TokenId TokenOf(RequestId request, uint32_t sample, int32_t index) {
  return static_cast<TokenId>((Value(request) * 1009 + sample * 101 + static_cast<uint64_t>(index)) % 50'000);
}

// A worker process with its link: what it says is one turn under way, and lost with it.
struct Process {
  std::unique_ptr<WorkerCore> core;
  WorkerInfo info;
  std::map<SequenceId, SampleKey> running;
  std::vector<StepResult> in_flight;
  std::vector<TokenEvent> said;
  bool hangs = false;
  Time back = Time::Never();  // while it is dead
};

class FaultyCluster {
 public:
  explicit FaultyCluster(uint64_t seed) : random_(seed) {
    for (uint32_t id = 0; id < kWorkers; ++id) Start(id);
  }

  // Faults at random moments, then on until all are answered.
  void Run(absl::Span<const Fault> faults) {
    for (const Fault fault : faults) {
      for (uint64_t turns = 1 + random_.Below(60); turns > 0; --turns) Turn(true);
      while (!Strike(fault)) Turn(true);
    }
    for (int turn = 0; turn < 20'000 && !router_.idle(); ++turn) Turn(false);
    ASSERT_TRUE(router_.idle()) << "a request was lost";
    for (const auto& [key, answer] : answers_) {
      EXPECT_EQ(answer.ends, 1) << Value(key.request);
      EXPECT_EQ(answer.tokens, answer.wanted) << Value(key.request);
    }
  }
  const RouterCounters& counters() const { return router_.counters(); }
  size_t num_answers() const { return answers_.size(); }
  uint64_t stale() const { return stale_; }

 private:
  struct Answer {
    int32_t tokens = 0, wanted = 0, ends = 0;
  };

  void Start(uint32_t id) {
    WorkerSpec spec;
    spec.options.worker = WorkerId{id};
    spec.options.incarnation = ++incarnations_;
    spec.options.num_blocks = 48;
    spec.options.block_tokens = 4;
    spec.options.max_num_seqs = 6;
    spec.options.max_step_tokens = 32;
    spec.options.max_context = 96;
    Process& process = processes_[id];
    process = {};
    process.core = *NewWorkerCore(spec);
    process.info = {.worker = WorkerId{id},
                    .incarnation = incarnations_,
                    .kv_capacity_tokens = 192,
                    .max_context = 96,
                    .slots = 6};
    router_.OnWorkerUp(process.info, now_, &out_);
  }

  // False: it would strike nobody who has something to lose.
  bool Strike(Fault fault) {
    const auto id = static_cast<uint32_t>(random_.Below(kWorkers));
    Process& process = processes_[id];
    if (process.core == nullptr || process.hangs || process.core->num_running() == 0) return false;
    if (fault == Fault::kKill) {
      process.core = nullptr;
      process.back = now_ + Duration::Microseconds(static_cast<int64_t>(random_.Below(4000)));
      // The end of its link is seen, or only that it lives again.
      if (random_.Below(2) == 0) router_.OnWorkerDown(WorkerId{id}, now_, &out_);
      return true;
    }
    if (fault == Fault::kHang) return process.hangs = true;
    for (auto event = process.said.begin(); event != process.said.end(); ++event) {
      if ((event->finish != FinishReason::kNone) != (fault == Fault::kLoseEnd)) continue;
      process.said.erase(event);
      return true;
    }
    return false;
  }

  void Turn(bool load) {
    now_ = now_ + kTurn;
    if (load && random_.Below(3) == 0) Arrive();
    for (uint32_t id = 0; id < kWorkers; ++id) {
      if (processes_[id].back <= now_) Start(id);
      Report(&processes_[id]);
      if (!processes_[id].hangs) Work(&processes_[id]);
    }
    Deliver();
    if (router_.NextWake() <= now_) router_.OnTimer(now_, &out_);
    Deliver();
  }

  void Arrive() {
    Submit submit;
    submit.key.request = RequestId{++requests_};
    submit.num_prompt = static_cast<int32_t>(1 + random_.Below(50));
    submit.stop.max_tokens = static_cast<int32_t>(1 + random_.Below(30));
    submit.tokens = std::make_shared<const std::vector<TokenId>>(submit.num_prompt, 1);
    const auto samples = static_cast<int32_t>(1 + random_.Below(2));
    if (!router_.OnArrival(submit, samples, now_, &out_).ok()) return;
    for (int32_t i = 0; i < samples; ++i) {
      answers_[{RequestId{requests_}, static_cast<uint32_t>(i), 0}].wanted = submit.stop.max_tokens;
    }
  }

  // The step in flight ends, and the next one begins.
  void Work(Process* process) {
    if (process->core == nullptr) return;
    for (const StepResult& result : process->in_flight) {
      EXPECT_TRUE(process->core->OnStepDone(result, now_, &process->said).ok());
    }
    process->in_flight.clear();
    const StepPlan& plan = process->core->Plan(now_);
    for (const AdmittedSequence& admitted : plan.admitted) {
      process->running[admitted.sequence] = admitted.submit->key;
    }
    if (plan.empty()) return;
    StepResult& result = process->in_flight.emplace_back();
    result.step = plan.step;
    for (const Slice& slice : plan.slices) {
      if (!slice.sample) continue;
      const SampleKey& key = process->running.at(slice.sequence);
      result.sampled.push_back({.sequence = slice.sequence,
                                .token = TokenOf(key.request, key.sample, slice.output_index),
                                .logprobs = nullptr});
    }
  }

  // What it said in the turn before arrives.
  void Report(Process* process) {
    if (process->core == nullptr) return;
    for (const TokenEvent& event : process->said) Hear(process->info.worker, event);
    process->said.clear();
    if (process->hangs) return;
    WorkerState state;
    process->core->State(now_, &state);
    router_.OnWorkerState(state, now_, &out_);
  }
  void Hear(WorkerId from, const TokenEvent& event) {
    if (!router_.OnTokenEvent(from, event, now_, &out_)) return;
    Answer& answer = answers_.at({event.key.request, event.key.sample, 0});
    EXPECT_EQ(answer.ends, 0);
    if (event.token >= 0) {
      EXPECT_EQ(event.index, answer.tokens);
      EXPECT_EQ(event.token, TokenOf(event.key.request, event.key.sample, answer.tokens++));
    }
    if (event.finish == FinishReason::kNone) return;
    EXPECT_EQ(event.finish, FinishReason::kLength);
    ++answer.ends;
  }

  void Deliver() {
    while (!out_.empty()) {
      const RouterOutput out = std::exchange(out_, {});
      for (const EndedSample& ended : out.ended) ADD_FAILURE() << ended.why;
      for (const WorkerId id : out.given_up) {
        Process& process = processes_[Value(id)];
        EXPECT_TRUE(process.hangs || process.core == nullptr);
        if (process.hangs) WakeUpTooLate(&process);
      }
      for (const LeaveOrder& order : out.leave) {
        Process& process = processes_[Value(order.worker)];
        if (process.core != nullptr) process.core->OnCancel(order.sample, now_, &process.said);
      }
      for (const Dispatch& dispatch : out.dispatch) {
        Process& process = processes_[Value(dispatch.worker)];
        if (process.core == nullptr) continue;
        EXPECT_TRUE(process.core->OnArrival(dispatch.submit, now_).ok());
      }
    }
  }
  // All that it still says is old.
  void WakeUpTooLate(Process* process) {
    for (int step = 0; step < 3; ++step) Work(process);
    for (const TokenEvent& event : process->said) {
      ++stale_;
      EXPECT_FALSE(router_.OnTokenEvent(process->info.worker, event, now_, &out_));
    }
    process->core = nullptr;
    process->hangs = false;
    process->back = now_ + Duration::Microseconds(static_cast<int64_t>(random_.Below(2000)));
  }

  RandomStream random_;
  RouterCore router_{AdmissionLimits{.max_queue_tokens = 1500}, std::make_unique<JsqTokensPolicy>(),
                     ReplayLimits{.max_replays = 1000, .progress_timeout = kProgressTimeout}};
  RouterOutput out_;
  std::map<uint32_t, Process> processes_;
  std::map<SampleKey, Answer> answers_;  // by request and sample
  uint64_t requests_ = 0, incarnations_ = 0, stale_ = 0;
  Time now_;
};

struct FaultTotals {
  size_t answers = 0;
  uint64_t given_up = 0, gaps = 0, stale = 0;
  std::array<uint64_t, kNumReplayReasons> replayed{};
};

FaultTotals RunFaults(uint64_t seeds, absl::Span<const Fault> kinds) {
  FaultTotals totals;
  for (uint64_t seed = 1; seed <= seeds && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    RandomStream random(seed);
    std::vector<Fault> faults;
    for (int i = 0; i < 20; ++i) faults.push_back(kinds[random.Below(kinds.size())]);
    FaultyCluster cluster(seed);
    cluster.Run(faults);
    totals.answers += cluster.num_answers();
    totals.stale += cluster.stale();
    totals.given_up += cluster.counters().given_up;
    totals.gaps += cluster.counters().gap_events;
    for (size_t i = 0; i < kNumReplayReasons; ++i) totals.replayed[i] += cluster.counters().replayed_for[i];
  }
  return totals;
}

TEST(RouterFaults, KilledTwentyTimesInARowNothingIsLostAndNothingSaidTwice) {
  const FaultTotals totals = RunFaults(60, {Fault::kKill});
  EXPECT_GT(totals.answers, 10'000u);
  EXPECT_GT(totals.replayed[static_cast<size_t>(ReplayReason::kWorkerLost)], 3000u);
  EXPECT_EQ(totals.gaps, 0u);
}

TEST(RouterFaults, NorWhateverElseHappens) {
  const FaultTotals totals = RunFaults(60, {Fault::kKill, Fault::kHang, Fault::kLoseToken, Fault::kLoseEnd});
  EXPECT_GT(totals.answers, 10'000u);
  EXPECT_GT(totals.given_up, 200u);
  EXPECT_GT(totals.gaps, 200u);
  EXPECT_GT(totals.stale, 200u);
  for (const ReplayReason why : {ReplayReason::kWorkerLost, ReplayReason::kHung, ReplayReason::kGap}) {
    EXPECT_GT(totals.replayed[static_cast<size_t>(why)], 200u) << ReplayReasonName(why);
  }
}

}  // namespace
}  // namespace orrery
