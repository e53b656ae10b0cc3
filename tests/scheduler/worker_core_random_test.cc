// Random histories of arrivals, cancels, steps, failures, deadlines and memory pressure: after every event
// all invariants hold, and in the end every sample has ended exactly once with exactly the tokens of its
// reference.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/journal.h"
#include "scheduler/policy/registry.h"
#include "scheduler/worker_core.h"
#include "scheduler/worker_factory.h"
#include "tests/scheduler/shadow_engine.h"

namespace orrery {
namespace {

constexpr int32_t kVocab = 7;  // small: prefixes repeat, stop ids are hit

// A policy without sense or manners: it preempts, grants, over-grants, idles and names strangers at random.
// The worker must stay correct whatever it is told.
class RandomPolicy final : public BatchPolicy {
 public:
  explicit RandomPolicy(uint64_t seed) : random_(seed) {}
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override {
    if (random_.Below(8) == 0) {
      decision->wake = now + Duration::Milliseconds(1);
      return;
    }
    for (const SequenceView& sequence : worker.running) {
      if (random_.Below(12) == 0) decision->preempt.push_back(sequence.id);
      if (random_.Below(6) != 0) decision->run.push_back({sequence.id, Count(sequence.tokens_to_compute())});
      if (random_.Below(20) == 0) decision->run.push_back({sequence.id, 1});
    }
    for (const SequenceView& sequence : worker.waiting) {
      if (random_.Below(3) == 0) decision->admit.push_back({sequence.id, Count(sequence.num_tokens)});
    }
    if (random_.Below(10) == 0) decision->admit.push_back({SequenceId{1 + random_.Below(1000)}, 5});
  }

 private:
  int32_t Count(int32_t limit) {
    return static_cast<int32_t>(random_.Below(static_cast<uint64_t>(limit) + 2));
  }
  RandomStream random_;
};

// One history on one worker.
class History {
 public:
  History(uint64_t seed, int depth, bool random_policy) : random_(seed, 1) {
    WorkerOptions& options = spec_.options;
    options.block_tokens = Pick({1, 2, 4, 16});
    options.num_blocks = static_cast<int32_t>(3 + random_.Below(random_.Below(2) == 0 ? 8 : 40));
    options.max_num_seqs = static_cast<int32_t>(1 + random_.Below(8));
    options.max_step_tokens = static_cast<int32_t>(1 + random_.Below(48));
    options.max_context = 64;
    options.max_waiting = static_cast<int32_t>(4 + random_.Below(40));
    options.vocab_size = kVocab;
    options.max_in_flight = depth;
    options.prefix_cache = random_.Below(5) != 0;
    options.hash_key = random_.Bits();
    if (random_.Below(2) == 0) spec_.scheduler = "fcfs:watermark=0,token_budget=9";
    if (seed % 2 == 0) spec_.eviction = "lec:half-life=1";
    if (random_policy) {
      WorkerParts parts;
      parts.policy = std::make_unique<RandomPolicy>(seed);
      parts.eviction = *NewEvictionPolicy(spec_.eviction);
      core_ = *WorkerCore::Create(options, std::move(parts));
    } else {
      core_ = *NewWorkerCore(spec_);
      journal_ = std::make_unique<JournalWriter>(spec_);
      core_->set_journal(journal_.get());
    }
    engine_ = std::make_unique<ShadowEngine>(options.num_blocks, options.block_tokens, options.max_num_seqs,
                                             kVocab);
  }

  void Run(int events) {
    for (int i = 0; i < events && !failed_; ++i) {
      RandomEvent();
      Check();
    }
    core_->Drain(now_);
    // Nothing new comes in: everything must end in bounded time.
    int turns = 0;
    while (!core_->idle() && !failed_) {
      now_ = now_ + Duration::Microseconds(100);
      Turn(false);
      Check();
      if (++turns > 200000) Fail("the worker makes no progress");
    }
    if (failed_) return;
    for (const auto& [key, sample] : samples_) {
      if (sample.ends != 1)
        Fail("sample of request " + std::to_string(Value(key.request)) + " ended " +
             std::to_string(sample.ends) + " times");
    }
    WorkerState state;
    core_->State(now_, &state);
    if (state.blocks_free + state.blocks_cached != state.blocks_total) Fail("blocks leaked");
    if (state.kv_tokens != 0 || !state.running.empty() || state.num_waiting != 0) Fail("state is not empty");
    if (engine_->occupied_slots() != 0) Fail("slots leaked");
    if (journal_ != nullptr) CheckReplay();
  }

  bool failed() const { return failed_; }
  const WorkerCounters& counters() const { return core_->counters(); }
  uint64_t completed() const { return completed_; }
  uint64_t scored() const { return scored_; }

 private:
  struct Sample {
    ReferenceOutput reference;
    int32_t num_emitted = 0;
    std::vector<TokenId> prompt;  // as far as its log-probabilities are wanted
    size_t scored = 1;            // positions of it that are told of; the first has none
    size_t received = 0;
    int ends = 0;
  };

  int32_t Pick(std::initializer_list<int32_t> values) { return values.begin()[random_.Below(values.size())]; }

  void Fail(const std::string& what) {
    ADD_FAILURE() << what;
    failed_ = true;
  }

  void Check() {
    const absl::Status status = core_->CheckInvariants();
    if (!status.ok()) Fail(status.ToString());
    if (!engine_->errors().empty()) Fail(engine_->errors().front());
    for (const TokenEvent& event : events_) Receive(event);
    events_.clear();
  }

  void Receive(const TokenEvent& event) {
    const auto found = samples_.find(event.key);
    if (found == samples_.end()) return Fail("event of an unknown sample");
    Sample& sample = found->second;
    if (sample.ends > 0) return Fail("event after the end");
    const ReferenceOutput& reference = sample.reference;
    if (event.prompt_logprobs != nullptr) {
      if (event.prompt_logprobs->begin != static_cast<int32_t>(sample.scored)) Fail("positions out of order");
      for (const float logprob : event.prompt_logprobs->chosen) {
        if (sample.scored >= sample.prompt.size() ||
            logprob != -static_cast<float>(sample.prompt[sample.scored])) {
          return Fail("the log-probability of another position");
        }
        ++sample.scored;
        ++scored_;
      }
    }
    if (event.token >= 0) {
      if (sample.scored < sample.prompt.size()) return Fail("a token before the whole prompt was told of");
      if (event.index != sample.num_emitted + static_cast<int32_t>(sample.received))
        return Fail("index out of order");
      if (sample.received >= reference.tokens.size() || reference.tokens[sample.received] != event.token) {
        return Fail("a token differs from the reference");
      }
      ++sample.received;
    }
    if (event.finish == FinishReason::kNone) return;
    ++sample.ends;
    const bool natural = event.finish == FinishReason::kStop || event.finish == FinishReason::kLength;
    completed_ += natural;
    if (natural && (sample.received != reference.tokens.size() || event.finish != reference.finish)) {
      Fail("ended at the wrong place");
    }
    if (!core_->Report(event.key).has_value()) Fail("no report at the end");
  }

  void RandomEvent() {
    now_ = now_ + Duration::Microseconds(static_cast<int64_t>(random_.Below(300)));
    const uint64_t dice = random_.Below(100);
    if (dice < 22) return Arrive();
    if (dice < 26) return core_->OnCancel(AnyKey(), now_, &events_);
    if (dice < 28) return core_->OnCancelRequest(AnyKey().request, now_, &events_);
    if (dice < 30) return engine_->PoisonNext(AnyKey());
    if (dice < 33) {
      WorkerState state;
      core_->State(now_, &state);
      if (state.blocks_free + state.blocks_cached > state.blocks_total) Fail("state counts too many blocks");
      return;
    }
    Turn(dice < 36);
  }

  // One turn of a driver that keeps up to `depth` steps in flight.
  void Turn(bool fail_step) {
    if (core_->NextWake() <= now_) core_->OnTimer(now_, &events_);
    if (core_->can_plan()) {
      const StepPlan& plan = core_->Plan(now_);
      if (!plan.empty()) {
        if (plan.num_tokens > spec_.options.max_step_tokens) Fail("plan is larger than a step");
        engine_->Launch(plan);
      }
    }
    const bool full = !core_->can_plan();
    if (!engine_->busy() || (!full && random_.Below(3) != 0)) return;
    if (fail_step) {
      const absl::Status status = core_->OnStepFailed(engine_->FinishFailed(), "device lost", now_, &events_);
      if (!status.ok()) Fail(status.ToString());
      return;
    }
    const absl::Status status = core_->OnStepDone(engine_->Finish(), now_, &events_);
    if (!status.ok()) Fail(status.ToString());
  }

  SampleKey AnyKey() {
    if (keys_.empty()) return {};
    // The most recent ones: most of the others have ended.
    const size_t window = std::min<size_t>(keys_.size(), 12);
    return keys_[keys_.size() - 1 - random_.Below(window)];
  }

  void Arrive() {
    Submit submit;
    submit.key = {RequestId{++requests_}, 0, static_cast<uint32_t>(random_.Below(3))};
    submit.submission = requests_;
    // Prompts are prefixes of a few streams, so that many begin alike.
    const uint64_t stream = random_.Below(3);
    submit.num_prompt = static_cast<int32_t>(1 + random_.Below(40));
    submit.num_emitted = random_.Below(4) == 0 ? static_cast<int32_t>(random_.Below(4)) : 0;
    submit.stop.max_tokens = submit.num_emitted + static_cast<int32_t>(1 + random_.Below(24));
    submit.stop.min_tokens = static_cast<int32_t>(random_.Below(6));
    if (random_.Below(3) == 0) submit.stop.stop_ids = {static_cast<TokenId>(random_.Below(kVocab))};
    submit.cache_salt = random_.Below(6) == 0;
    if (random_.Below(10) == 0)
      submit.deadline = now_ + Duration::Microseconds(static_cast<int64_t>(random_.Below(6000)));
    std::vector<TokenId> tokens(static_cast<size_t>(submit.num_prompt + submit.num_emitted));
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<TokenId>(UniformAt(stream, i, 9) * kVocab);
    }
    if (random_.Below(3) == 0) tokens.back() = static_cast<TokenId>(random_.Below(kVocab));
    submit.tokens = std::make_shared<const std::vector<TokenId>>(std::move(tokens));
    if (requests_ % 4 == 0) submit.sampling.num_prompt_logprobs = static_cast<int32_t>(requests_ % 3);
    if (requests_ % 5 == 0) submit.sampling.presence_penalty = 0.5f;
    const uint64_t samples = random_.Below(5) == 0 ? 1 + random_.Below(4) : 1;
    for (uint64_t i = 0; i < samples; ++i) {
      submit.key.sample = static_cast<uint32_t>(i);
      Submit copy = submit;
      if (!core_->OnArrival(std::move(copy), now_).ok()) continue;
      Sample& sample = samples_[submit.key];
      sample = {ReferenceRun(submit, kVocab), submit.num_emitted, {}};
      if (submit.sampling.num_prompt_logprobs >= 0 && submit.num_emitted == 0) sample.prompt = *submit.tokens;
      keys_.push_back(submit.key);
      // The same key again is refused as long as the sample lives.
      if (random_.Below(10) == 0 && core_->OnArrival(submit, now_).ok()) Fail("a duplicate was accepted");
    }
  }

  void CheckReplay() {
    const std::string bytes = journal_->TakeBytes();
    const auto replay = Replay(bytes);
    if (!replay.ok()) return Fail(replay.status().ToString());
    if (!replay->difference.empty()) return Fail("replay: " + replay->difference);
    if (replay->summary.truncated || replay->summary.arrivals < samples_.size())
      Fail("replay saw too little");
  }

  RandomStream random_;
  WorkerSpec spec_;
  std::unique_ptr<WorkerCore> core_;
  std::unique_ptr<JournalWriter> journal_;
  std::unique_ptr<ShadowEngine> engine_;
  std::map<SampleKey, Sample> samples_;
  std::vector<SampleKey> keys_;
  std::vector<TokenEvent> events_;
  uint64_t requests_ = 0, completed_ = 0, scored_ = 0;
  Time now_;
  bool failed_ = false;
};

struct Totals {
  uint64_t completed = 0, preemptions = 0, prefix_hits = 0, wasted = 0, repairs = 0, fallbacks = 0,
           evicted = 0, scored = 0;
};

Totals RunMany(uint64_t first_seed, int histories, int depth, bool random_policy) {
  Totals totals;
  for (int i = 0; i < histories; ++i) {
    const uint64_t seed = first_seed + static_cast<uint64_t>(i);
    SCOPED_TRACE("seed " + std::to_string(seed) + " depth " + std::to_string(depth));
    History history(seed, depth, random_policy);
    history.Run(90);
    if (history.failed()) break;
    totals.completed += history.completed();
    totals.scored += history.scored();
    totals.preemptions += history.counters().preemptions;
    totals.prefix_hits += history.counters().prefix_hit_tokens;
    totals.wasted += history.counters().wasted_rows;
    totals.repairs += history.counters().repairs;
    totals.fallbacks += history.counters().fallbacks;
    totals.evicted += history.counters().evicted_blocks;
  }
  return totals;
}

// The totals below show that the histories reach the corners they are meant to reach.
TEST(WorkerCoreRandom, FcfsDepthOne) {
  const Totals totals = RunMany(1, 4000, 1, false);
  EXPECT_GT(totals.completed, 10000u);
  EXPECT_GT(totals.preemptions, 1000u);
  EXPECT_GT(totals.prefix_hits, 10000u);
  EXPECT_GT(totals.evicted, 1000u);
  EXPECT_EQ(totals.repairs, 0u) << "fcfs keeps its own promises about memory";
  EXPECT_EQ(totals.fallbacks, 0u);
}

TEST(WorkerCoreRandom, FcfsDepthTwo) {
  const Totals totals = RunMany(100001, 4000, 2, false);
  EXPECT_GT(totals.completed, 10000u);
  EXPECT_GT(totals.preemptions, 1000u);
  EXPECT_GT(totals.prefix_hits, 10000u);
  EXPECT_GT(totals.wasted, 1000u);
  EXPECT_GT(totals.scored, 10000u);
  EXPECT_EQ(totals.fallbacks, 0u);
}

TEST(WorkerCoreRandom, AnyPolicyDepthOne) {
  const Totals totals = RunMany(200001, 1000, 1, true);
  EXPECT_GT(totals.completed, 2500u);
  EXPECT_GT(totals.repairs, 1000u);
  EXPECT_GT(totals.fallbacks, 10u);
}

TEST(WorkerCoreRandom, AnyPolicyDepthTwo) {
  const Totals totals = RunMany(300001, 1000, 2, true);
  EXPECT_GT(totals.completed, 2500u);
  EXPECT_GT(totals.repairs, 1000u);
  EXPECT_GT(totals.wasted, 100u);
}

}  // namespace
}  // namespace orrery
