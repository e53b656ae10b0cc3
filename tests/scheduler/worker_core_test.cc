#include "scheduler/worker_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/kv/lru.h"
#include "scheduler/types/refusal.h"
#include "scheduler/worker_factory.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

WorkerSpec Spec() {
  WorkerSpec spec;
  spec.options.num_blocks = 16;
  spec.options.block_tokens = 4;
  spec.options.max_context = 64;
  spec.options.vocab_size = 100;
  return spec;
}

Submit Request(uint64_t id, int32_t prompt, int32_t max_tokens) {
  Submit submit;
  submit.key.request = RequestId{id};
  submit.submission = id;
  submit.num_prompt = prompt;
  submit.stop.max_tokens = max_tokens;
  submit.tokens = std::make_shared<const std::vector<TokenId>>(prompt, static_cast<TokenId>(id % 100));
  return submit;
}

// Answers a plan with token 7 everywhere.
StepResult Answer(const StepPlan& plan) {
  StepResult result;
  result.step = plan.step;
  for (const Slice& slice : plan.slices) {
    if (slice.num_scored > 0) result.scored.emplace_back().sequence = slice.sequence;
    if (slice.sample) result.sampled.push_back({.sequence = slice.sequence, .token = 7, .logprobs = nullptr});
  }
  return result;
}

class WorkerCoreTest : public ::testing::Test {
 protected:
  void Use(const WorkerSpec& spec) { core_ = *NewWorkerCore(spec); }
  void SetUp() override { Use(Spec()); }
  void Step() {
    const StepPlan& plan = core_->Plan(now_);
    if (plan.empty()) return;
    ASSERT_TRUE(core_->OnStepDone(Answer(plan), now_, &events_).ok());
  }
  std::unique_ptr<WorkerCore> core_;
  std::vector<TokenEvent> events_;
  Time now_;
};

TEST(WorkerOptionsTest, AreChecked) {
  const std::pair<const char*, void (*)(WorkerOptions*)> kCases[] = {
      {"num_blocks", [](WorkerOptions* o) { o->num_blocks = 0; }},
      {"num_blocks", [](WorkerOptions* o) { o->num_blocks = (1 << 26) + 1; }},
      {"block_tokens", [](WorkerOptions* o) { o->block_tokens = 0; }},
      {"max_num_seqs", [](WorkerOptions* o) { o->max_num_seqs = 5000; }},
      {"max_step_tokens", [](WorkerOptions* o) { o->max_step_tokens = 0; }},
      {"max_context", [](WorkerOptions* o) { o->max_context = 1; }},
      {"max_waiting", [](WorkerOptions* o) { o->max_waiting = 0; }},
      {"max_in_flight", [](WorkerOptions* o) { o->max_in_flight = 3; }},
      {"lookahead", [](WorkerOptions* o) { o->lookahead = kLookaheadSteps + 1; }},
      {"num_blocks * block_tokens",
       [](WorkerOptions* o) { o->num_blocks = 1 << 26, o->block_tokens = 1024; }},
  };
  for (const auto& [field, change] : kCases) {
    WorkerSpec spec = Spec();
    change(&spec.options);
    EXPECT_THAT(std::string(NewWorkerCore(spec).status().message()), HasSubstr(field));
  }
  WorkerSpec spec = Spec();
  spec.scheduler = "fcfs:watermark=2";
  EXPECT_FALSE(NewWorkerCore(spec).ok());
  spec = Spec();
  spec.cost = "constant:x";
  EXPECT_FALSE(NewWorkerCore(spec).ok());
}

TEST_F(WorkerCoreTest, RefusesMalformedSubmitsAndStaysUsable) {
  const std::pair<const char*, void (*)(Submit*)> kCases[] = {
      {"num_prompt", [](Submit* s) { s->num_prompt = 0; }},
      {"num_prompt", [](Submit* s) { s->num_prompt = -5; }},
      {"num_emitted", [](Submit* s) { s->num_emitted = -1; }},
      {"max_tokens", [](Submit* s) { s->stop.max_tokens = 0; }},
      {"max_tokens", [](Submit* s) { s->num_emitted = 3, s->stop.max_tokens = 3; }},
      {"max_tokens", [](Submit* s) { s->stop.max_tokens = std::numeric_limits<int32_t>::max(); }},
      {"prompt", [](Submit* s) { s->num_prompt = std::numeric_limits<int32_t>::max(); }},
      {"token_ids", [](Submit* s) { s->num_prompt = 6; }},
      {"token_ids", [](Submit* s) { s->tokens = std::make_shared<std::vector<TokenId>>(5, 100); }},
      {"token_ids", [](Submit* s) { s->tokens = std::make_shared<std::vector<TokenId>>(5, -1); }},
      {"stop_ids",
       [](Submit* s) {
         s->stop.stop_ids = {3, 2};
       }},
      {"stop_ids", [](Submit* s) { s->stop.stop_ids.assign(5000, 1); }},
  };
  for (const auto& [field, change] : kCases) {
    Submit submit = Request(1, 5, 4);
    change(&submit);
    const auto refusal = RefusalOf(core_->OnArrival(submit, now_));
    ASSERT_TRUE(refusal.has_value()) << field;
    EXPECT_EQ(refusal->field, field);
  }
  EXPECT_EQ(core_->counters().refused, std::size(kCases));
  EXPECT_EQ(core_->num_waiting(), 0);
  EXPECT_TRUE(core_->OnArrival(Request(1, 5, 4), now_).ok());
  EXPECT_TRUE(core_->CheckInvariants().ok());
}

TEST_F(WorkerCoreTest, EmitsTokensThenTheEnd) {
  Submit submit = Request(1, 5, 5);
  submit.num_emitted = 2;
  submit.tokens = std::make_shared<std::vector<TokenId>>(7, 1);
  ASSERT_TRUE(core_->OnArrival(submit, now_).ok());
  for (int i = 0; i < 3; ++i) {
    now_ = now_ + Duration::Milliseconds(2);
    Step();
  }
  ASSERT_EQ(events_.size(), 3u);
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(events_[i].index, 2 + i) << "emitted ids count";
    EXPECT_EQ(events_[i].token, 7);
    EXPECT_EQ(events_[i].finish, i < 2 ? FinishReason::kNone : FinishReason::kLength);
  }
  const auto report = core_->Report(submit.key);
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->arrived, Time{});
  EXPECT_EQ(report->first_scheduled, Time{} + Duration::Milliseconds(2));
  EXPECT_EQ(report->first_token, Time{} + Duration::Milliseconds(2));
  EXPECT_EQ(report->finished, Time{} + Duration::Milliseconds(6));
  EXPECT_EQ(core_->counters().finished[static_cast<int>(FinishReason::kLength)], 1u);
  EXPECT_EQ(core_->counters().generated_tokens, 3u);
  EXPECT_FALSE(core_->idle()) << "the slot is still to be released";
  Step();
  EXPECT_TRUE(core_->idle());
}

TEST_F(WorkerCoreTest, StopIdsWaitForMinTokens) {
  Submit submit = Request(1, 5, 6);
  submit.stop.stop_ids = {7};
  submit.stop.min_tokens = 3;
  ASSERT_TRUE(core_->OnArrival(submit, now_).ok());
  for (int i = 0; i < 5; ++i) Step();
  ASSERT_EQ(events_.size(), 4u);
  EXPECT_EQ(events_[3].finish, FinishReason::kStop);
}

TEST_F(WorkerCoreTest, AWrongResultIsAnErrorAndChangesNothing) {
  ASSERT_TRUE(core_->OnArrival(Request(1, 5, 4), now_).ok());
  EXPECT_FALSE(core_->OnStepDone(StepResult{}, now_, &events_).ok()) << "nothing is in flight";
  const StepPlan& plan = core_->Plan(now_);
  StepResult result = Answer(plan);
  result.step = StepId{99};
  EXPECT_FALSE(core_->OnStepDone(result, now_, &events_).ok());
  result = Answer(plan);
  result.sampled.push_back(result.sampled[0]);
  EXPECT_FALSE(core_->OnStepDone(result, now_, &events_).ok());
  result = Answer(plan);
  result.sampled[0].sequence = SequenceId{12};
  EXPECT_FALSE(core_->OnStepDone(result, now_, &events_).ok());
  result = Answer(plan);
  result.sampled[0].token = 100;
  EXPECT_FALSE(core_->OnStepDone(result, now_, &events_).ok()) << "outside the vocabulary";
  EXPECT_FALSE(core_->OnStepFailed(StepId{99}, "x", now_, &events_).ok());
  EXPECT_TRUE(events_.empty());
  EXPECT_EQ(core_->in_flight(), 1);
  EXPECT_TRUE(core_->OnStepDone(Answer(plan), now_, &events_).ok());
}

TEST_F(WorkerCoreTest, PenaltiesWaitForTheTokenInFlight) {
  WorkerSpec spec = Spec();
  spec.options.max_in_flight = 2;
  for (const bool penalised : {false, true}) {
    Use(spec);
    Submit submit = Request(1, 20, 3);
    submit.sampling.repetition_penalty = penalised ? 1.2f : 1.0f;
    ASSERT_TRUE(core_->OnArrival(submit, now_).ok());
    for (int token = 1; token <= 3; ++token) {
      const StepPlan& plan = core_->Plan(now_);
      ASSERT_EQ(plan.num_samples, 1);
      // The last one has nothing behind it.
      EXPECT_EQ(core_->can_plan(), !penalised || token == 3) << "token " << token;
      ASSERT_TRUE(core_->OnStepDone(Answer(plan), now_, &events_).ok());
      ASSERT_TRUE(core_->can_plan());
    }
  }
}

TEST_F(WorkerCoreTest, NumericalErrorsEndTheirSequenceAlone) {
  ASSERT_TRUE(core_->OnArrival(Request(1, 5, 4), now_).ok());
  ASSERT_TRUE(core_->OnArrival(Request(2, 5, 4), now_).ok());
  const StepPlan& plan = core_->Plan(now_);
  StepResult result = Answer(plan);
  result.sampled[0].status = SampleStatus::kNumericalError;
  result.sampled[0].token = -1;
  ASSERT_TRUE(core_->OnStepDone(result, now_, &events_).ok());
  ASSERT_EQ(events_.size(), 2u);
  EXPECT_EQ(events_[0].finish, FinishReason::kError);
  EXPECT_THAT(events_[0].error, HasSubstr("not finite"));
  EXPECT_EQ(events_[1].token, 7);
  EXPECT_EQ(core_->num_running(), 1);
}

TEST_F(WorkerCoreTest, KvWithNumericalErrorsIsNotCached) {
  WorkerSpec spec = Spec();
  spec.options.max_step_tokens = 8;
  Use(spec);
  ASSERT_TRUE(core_->OnArrival(Request(1, 20, 4), now_).ok());
  Step();
  Step();
  const StepPlan& plan = core_->Plan(now_);
  StepResult result = Answer(plan);
  ASSERT_EQ(result.sampled.size(), 1u);
  result.sampled[0].status = SampleStatus::kNumericalError;
  ASSERT_TRUE(core_->OnStepDone(result, now_, &events_).ok());
  Submit again = Request(2, 20, 1);
  again.tokens = std::make_shared<const std::vector<TokenId>>(20, 1);  // as the first
  ASSERT_TRUE(core_->OnArrival(again, now_).ok());
  for (int i = 0; i < 3; ++i) Step();
  EXPECT_EQ(events_.back().finish, FinishReason::kLength);
  EXPECT_EQ(core_->Report(again.key)->cached_tokens, 0);
  EXPECT_TRUE(core_->CheckInvariants().ok());
}

// A prompt whose log-probabilities are wanted is computed, whoever has computed it before, and found by
// others.
TEST_F(WorkerCoreTest, PromptsThatAreScoredAreNotLookedUpInTheCache) {
  WorkerSpec spec = Spec();
  spec.options.max_step_tokens = 8;
  Use(spec);
  Submit submit = Request(1, 20, 1);
  const auto run = [&](bool scored) {
    submit.sampling.num_prompt_logprobs = scored ? 0 : -1;
    ++submit.key.sample;
    EXPECT_TRUE(core_->OnArrival(submit, now_).ok());
    std::vector<int32_t> rows;
    while (!core_->idle()) {
      const StepPlan& plan = core_->Plan(now_);
      for (const Slice& slice : plan.slices) rows.push_back(slice.num_scored);
      EXPECT_TRUE(core_->OnStepDone(Answer(plan), now_, &events_).ok());
      EXPECT_TRUE(core_->CheckInvariants().ok());
    }
    return rows;
  };
  EXPECT_THAT(run(true), ElementsAre(8, 8, 3)) << "the last row makes the first token";
  EXPECT_THAT(run(true), ElementsAre(8, 8, 3));
  EXPECT_EQ(core_->counters().prefix_hit_tokens, 0u);
  EXPECT_THAT(run(false), ElementsAre(0));
  EXPECT_EQ(core_->counters().prefix_hit_tokens, 16u);
  submit.num_emitted = 1;  // an earlier attempt has told of the prompt
  submit.stop.max_tokens = 2;
  submit.tokens = std::make_shared<const std::vector<TokenId>>(21, 1);
  EXPECT_THAT(run(true), ElementsAre(0));
}

TEST_F(WorkerCoreTest, AScoredRowThatIsNotFiniteEndsItsSequence) {
  Submit submit = Request(1, 5, 4);
  submit.sampling.num_prompt_logprobs = 0;
  ASSERT_TRUE(core_->OnArrival(submit, now_).ok());
  const StepPlan& plan = core_->Plan(now_);
  StepResult result = Answer(plan);
  result.scored.clear();
  EXPECT_FALSE(core_->OnStepDone(result, now_, &events_).ok()) << "a prompt is missing";
  result.scored.resize(1);
  EXPECT_FALSE(core_->OnStepDone(result, now_, &events_).ok()) << "of nobody";
  result = Answer(plan);
  result.scored[0].status = SampleStatus::kNumericalError;
  ASSERT_TRUE(core_->OnStepDone(result, now_, &events_).ok());
  ASSERT_EQ(events_.size(), 1u);
  EXPECT_EQ(events_[0].finish, FinishReason::kError);
  EXPECT_TRUE(core_->CheckInvariants().ok());
}

TEST_F(WorkerCoreTest, StateSaysWhatIsThere) {
  ASSERT_TRUE(core_->OnArrival(Request(5, 9, 8), now_).ok());
  ASSERT_TRUE(core_->OnArrival(Request(3, 6, 1), now_).ok());
  Step();
  ASSERT_TRUE(core_->OnArrival(Request(9, 20, 8), now_).ok());
  WorkerState state;
  core_->State(now_, &state);
  EXPECT_EQ(state.sequence_number, 1u);
  EXPECT_EQ(state.last_submission, 9u);
  EXPECT_EQ(state.step, StepId{1});
  EXPECT_EQ(state.kv_tokens, 9);
  ASSERT_EQ(state.running.size(), 1u);
  EXPECT_EQ(state.running[0].key.request, RequestId{5});
  EXPECT_EQ(state.running[0].kv_tokens, 9);
  EXPECT_EQ(state.running[0].generated, 1);
  EXPECT_THAT(state.finished, ElementsAre(SampleKey{RequestId{3}, 0, 0}));
  EXPECT_EQ(state.num_waiting, 1);
  EXPECT_EQ(state.waiting_prompt_tokens, 20);
  EXPECT_EQ(state.blocks_total, 16);
  EXPECT_EQ(state.blocks_free + state.blocks_cached, 13);
  EXPECT_EQ(state.free_slots, 255);
  core_->State(now_, &state);
  EXPECT_EQ(state.sequence_number, 2u);
  EXPECT_TRUE(state.finished.empty()) << "told once";
}

TEST_F(WorkerCoreTest, SimulatedRequestsNeedNoTokenIds) {
  Submit submit = Request(1, 9, 2);
  submit.tokens = nullptr;
  ASSERT_TRUE(core_->OnArrival(submit, now_).ok());
  submit.key.sample = 1;
  ASSERT_TRUE(core_->OnArrival(submit, now_).ok());
  Step();
  Step();
  EXPECT_EQ(core_->counters().finished[static_cast<int>(FinishReason::kLength)], 2u);
  EXPECT_EQ(core_->counters().prefix_hit_tokens, 0u);
}

TEST_F(WorkerCoreTest, PreemptionReportsAndCounts) {
  WorkerSpec spec = Spec();
  spec.options.num_blocks = 5;
  spec.options.prefix_cache = false;
  Use(spec);
  ASSERT_TRUE(core_->OnArrival(Request(1, 8, 8), now_).ok());
  ASSERT_TRUE(core_->OnArrival(Request(2, 8, 2), now_).ok());
  Step();
  Step();
  EXPECT_EQ(core_->counters().preemptions, 1u);
  EXPECT_EQ(core_->counters().recomputed_tokens, 8u);
  EXPECT_EQ(core_->num_waiting(), 1);
  for (int i = 0; i < 10; ++i) Step();
  const auto last = std::find_if(events_.begin(), events_.end(), [](const TokenEvent& event) {
    return event.key.request == RequestId{2} && event.finish != FinishReason::kNone;
  });
  ASSERT_NE(last, events_.end());
  EXPECT_EQ(core_->counters().finished[static_cast<int>(FinishReason::kLength)], 2u);
}

// Idles until it has seen three waiting sequences, at most a millisecond.
class Patient final : public BatchPolicy {
 public:
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override {
    for (const SequenceView& sequence : worker.running) decision->run.push_back({sequence.id, 1});
    if (since_.is_never()) since_ = now;
    if (worker.waiting.size() < 3 && now < since_ + Duration::Milliseconds(1)) {
      decision->wake = since_ + Duration::Milliseconds(1);
      return;
    }
    for (const SequenceView& sequence : worker.waiting)
      decision->admit.push_back({sequence.id, sequence.num_tokens});
  }

 private:
  Time since_ = Time::Never();
};

TEST(WorkerCoreWake, APolicyMayIdleOnPurpose) {
  WorkerParts parts;
  parts.policy = std::make_unique<Patient>();
  parts.eviction = std::make_unique<LruEviction>();
  auto core = *WorkerCore::Create(Spec().options, std::move(parts));
  EXPECT_TRUE(core->NextWake().is_never());
  ASSERT_TRUE(core->OnArrival(Request(1, 5, 2), Time{}).ok());
  EXPECT_TRUE(core->Plan(Time{}).empty());
  EXPECT_EQ(core->NextWake(), Time{} + Duration::Milliseconds(1));
  EXPECT_EQ(core->Plan(core->NextWake()).num_tokens, 5);
  EXPECT_EQ(core->counters().fallbacks, 0u);
}

TEST_F(WorkerCoreTest, ASnapshotTellsWhatLeavesSoon) {
  WorkerSpec spec = Spec();
  spec.predictor = "interval:low=1";
  for (const int32_t lookahead : {kLookaheadSteps, 3, 0}) {
    spec.options.lookahead = lookahead;
    Use(spec);
    ASSERT_TRUE(core_->OnArrival(Request(1, 5, 5), now_).ok());
    Step();
    WorkerState state;
    core_->State(now_, &state, StateScope::kSums);
    // One token made; the quantiles of the length are 2, 3, 3, 4 and 5, of 5 tokens of KV.
    std::array<int64_t, kLookaheadSteps> expected = {1, 3, 4, 5, 5, 5, 5, 5, 5, 5};
    std::fill(expected.begin() + lookahead, expected.end(), 0);
    EXPECT_EQ(state.leaving_tokens, expected) << lookahead;
  }
}

}  // namespace
}  // namespace orrery
