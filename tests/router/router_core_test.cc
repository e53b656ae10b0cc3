#include "router/router_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "router/policy/jsq_tokens.h"
#include "scheduler/types/refusal.h"

namespace orrery {
namespace {

// A router with `workers` equal workers of 1000 KV tokens.
class RouterCoreTest : public ::testing::Test {
 protected:
  void Up(uint32_t id, uint64_t incarnation = 1) {
    core_.OnWorkerUp({.worker = WorkerId{id},
                      .incarnation = incarnation,
                      .kv_capacity_tokens = 1000,
                      .max_context = 1000,
                      .slots = 4},
                     now_, &out_);
  }
  absl::Status Arrive(uint64_t id, int32_t prompt, int32_t samples = 1, Time deadline = Time::Never()) {
    Submit submit;
    submit.key.request = RequestId{id};
    submit.num_prompt = prompt;
    submit.stop.max_tokens = 10;
    submit.sampling.seed = 100;
    submit.deadline = deadline;
    return core_.OnArrival(submit, samples, now_, &out_);
  }
  bool Token(uint32_t worker, uint64_t request, int32_t index, TokenId token,
             FinishReason finish = FinishReason::kNone, uint32_t sample = 0, uint32_t attempt = 0) {
    TokenEvent event;
    event.key = {RequestId{request}, sample, attempt};
    event.index = index;
    event.token = token;
    event.finish = finish;
    return core_.OnTokenEvent(WorkerId{worker}, event, now_, &out_);
  }
  WorkerState State(uint32_t id, uint64_t number, uint64_t last_submission, int64_t kv_tokens) {
    WorkerState state;
    state.worker = WorkerId{id};
    state.incarnation = 1;
    state.sequence_number = number;
    state.last_submission = last_submission;
    state.kv_tokens = kv_tokens;
    state.num_running = 1;
    return state;
  }

  RouterCore core_{AdmissionLimits{.max_queue_tokens = 500}, std::make_unique<JsqTokensPolicy>()};
  RouterOutput out_;
  Time now_;
};

TEST_F(RouterCoreTest, RefusesWithoutAWorkerAndWhileDraining) {
  EXPECT_EQ(RefusalOf(Arrive(1, 5))->reason, RefusalReason::kNoWorker);
  Up(0);
  core_.Drain();
  EXPECT_EQ(RefusalOf(Arrive(1, 5))->reason, RefusalReason::kDraining);
  EXPECT_TRUE(core_.idle());
  EXPECT_EQ(core_.counters().refused, 2u);
}

TEST_F(RouterCoreTest, SendsTheSamplesOfARequestTogetherWithTheirOwnSeeds) {
  Up(0);
  Up(1);
  ASSERT_TRUE(Arrive(1, 5, 3).ok());
  ASSERT_EQ(out_.dispatch.size(), 3u);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(out_.dispatch[i].worker, WorkerId{0});
    EXPECT_EQ(out_.dispatch[i].submit.key, (SampleKey{RequestId{1}, i, 0}));
    EXPECT_EQ(out_.dispatch[i].submit.submission, i + 1);
    EXPECT_EQ(out_.dispatch[i].submit.sampling.seed, 100 + i);
  }
  EXPECT_EQ(RefusalOf(Arrive(1, 5))->reason, RefusalReason::kDuplicate);
}

TEST_F(RouterCoreTest, CountsWhatWasSentUntilASnapshotCoversIt) {
  Up(0);
  Up(1);
  ASSERT_TRUE(Arrive(1, 50).ok());
  ASSERT_TRUE(Arrive(2, 20).ok());
  ASSERT_TRUE(Arrive(3, 20).ok());
  EXPECT_EQ(out_.dispatch[1].worker, WorkerId{1});
  EXPECT_EQ(out_.dispatch[2].worker, WorkerId{1}) << "20 sent to worker 1, 50 to worker 0";
  EXPECT_EQ(core_.queued_tokens(), 90);
  core_.OnWorkerState(State(1, 1, 1, 20), now_, &out_);
  EXPECT_EQ(core_.workers()[1].sent_tokens, 20) << "the second is not in the snapshot yet";
  EXPECT_EQ(core_.workers()[1].load_tokens(), 40);
  core_.OnWorkerState(State(1, 2, 2, 40), now_, &out_);
  EXPECT_EQ(core_.workers()[1].load_tokens(), 40);
  core_.OnWorkerState(State(1, 1, 2, 999), now_, &out_);
  EXPECT_EQ(core_.workers()[1].kv_tokens, 40) << "an older snapshot is dropped";
  WorkerState other = State(1, 9, 2, 999);
  other.incarnation = 2;
  core_.OnWorkerState(other, now_, &out_);
  EXPECT_EQ(core_.workers()[1].kv_tokens, 40) << "so is one of another life";
}

TEST_F(RouterCoreTest, DropsStaleAndRepeatedTokens) {
  Up(0);
  ASSERT_TRUE(Arrive(1, 5).ok());
  EXPECT_TRUE(Token(0, 1, 0, 42));
  EXPECT_FALSE(Token(0, 1, 0, 42)) << "seen";
  EXPECT_FALSE(Token(0, 1, 1, 43, FinishReason::kNone, 0, 1)) << "another attempt";
  EXPECT_FALSE(Token(0, 1, 1, 43, FinishReason::kNone, 1)) << "no such sample";
  EXPECT_FALSE(Token(7, 1, 1, 43)) << "another worker";
  EXPECT_FALSE(Token(0, 9, 0, 43)) << "no such request";
  EXPECT_THAT(*core_.Emitted(RequestId{1}, 0), ::testing::ElementsAre(42));
  EXPECT_TRUE(Token(0, 1, 1, 43, FinishReason::kLength));
  EXPECT_FALSE(Token(0, 1, 2, 44)) << "ended";
  EXPECT_TRUE(core_.idle());
  EXPECT_EQ(core_.counters().fresh_events, 2u);
  EXPECT_EQ(core_.counters().dropped_events, 6u);
  EXPECT_EQ(core_.counters().gap_events, 0u);
}

TEST_F(RouterCoreTest, BoundsTheQueueAndPredictsTheWait) {
  Up(0);
  ASSERT_TRUE(Arrive(1, 400).ok());
  const auto refusal = RefusalOf(Arrive(2, 101));
  EXPECT_EQ(refusal->reason, RefusalReason::kQueueFull);
  EXPECT_EQ(refusal->limit, 500);
  // 400 tokens served in a second of work.
  now_ = now_ + Duration::Seconds(1);
  EXPECT_TRUE(Token(0, 1, 0, 1));
  core_.OnWorkerState(State(0, 1, 1, 400), now_, &out_);
  ASSERT_TRUE(Arrive(2, 200).ok());
  EXPECT_NEAR(core_.predicted_wait().seconds(), 0.5, 0.01);
}

TEST_F(RouterCoreTest, PoolsWhileNobodyAcceptsAndPlacesLater) {
  Up(0);
  WorkerState draining = State(0, 1, 0, 0);
  draining.draining = true;
  core_.OnWorkerState(draining, now_, &out_);
  EXPECT_EQ(RefusalOf(Arrive(1, 5))->reason, RefusalReason::kNoWorker);
  Up(1);
  ASSERT_TRUE(Arrive(1, 5).ok());
  EXPECT_EQ(out_.dispatch.back().worker, WorkerId{1});
}

TEST_F(RouterCoreTest, CancelGoesToTheWorkerAndEndsThroughItsEvents) {
  Up(0);
  ASSERT_TRUE(Arrive(1, 5, 2).ok());
  core_.OnCancel(RequestId{1}, now_, &out_);
  ASSERT_EQ(out_.cancel.size(), 1u);
  EXPECT_EQ(out_.cancel[0].worker, WorkerId{0});
  EXPECT_TRUE(out_.ended.empty());
  EXPECT_TRUE(Token(0, 1, -1, -1, FinishReason::kCancelled, 0));
  EXPECT_TRUE(Token(0, 1, -1, -1, FinishReason::kCancelled, 1));
  EXPECT_TRUE(core_.idle());
  core_.OnCancel(RequestId{1}, now_, &out_);
  EXPECT_EQ(out_.cancel.size(), 1u) << "cancelling again does nothing";
}

TEST_F(RouterCoreTest, WhatALostWorkerHadGoesOnElsewhereWithWhatItHasEmitted) {
  Up(0);
  ASSERT_TRUE(Arrive(2, 5).ok());
  now_ = now_ + Duration::Milliseconds(1);
  ASSERT_TRUE(Arrive(1, 50, 2).ok());
  EXPECT_TRUE(Token(0, 2, 0, 20));
  EXPECT_TRUE(Token(0, 1, 0, 30, FinishReason::kNone, 0));
  EXPECT_TRUE(Token(0, 1, 0, 40, FinishReason::kNone, 1));
  EXPECT_TRUE(Token(0, 1, 1, 41, FinishReason::kNone, 1));
  EXPECT_TRUE(Token(0, 1, -1, -1, FinishReason::kError, 0)) << "its own error is no loss of the worker";
  Up(1);
  out_.Clear();
  core_.OnWorkerDown(WorkerId{0}, now_, &out_);
  EXPECT_TRUE(out_.ended.empty());
  ASSERT_EQ(out_.dispatch.size(), 2u);
  const Submit &first = out_.dispatch[0].submit, &second = out_.dispatch[1].submit;
  EXPECT_EQ(first.key, (SampleKey{RequestId{2}, 0, 1})) << "in order of arrival";
  EXPECT_EQ(first.num_emitted, 1);
  EXPECT_EQ(second.key, (SampleKey{RequestId{1}, 1, 1}));
  EXPECT_EQ(second.num_emitted, 2);
  EXPECT_EQ(second.sampling.seed, 101u);
  EXPECT_FALSE(second.kv_source.has_value());
  EXPECT_EQ(core_.queued_tokens(), 5 + 1 + 50 + 2);
  EXPECT_EQ(core_.counters().replayed, 2u);
  EXPECT_FALSE(Token(0, 2, 1, 21)) << "the dead say nothing more";
  EXPECT_FALSE(Token(1, 2, 1, 21)) << "nor does an older attempt";
  EXPECT_FALSE(Token(1, 2, 0, 20, FinishReason::kNone, 0, 1)) << "nothing twice";
  EXPECT_TRUE(Token(1, 2, 1, 21, FinishReason::kStop, 0, 1));
  EXPECT_TRUE(Token(1, 1, 2, 42, FinishReason::kLength, 1, 1));
  EXPECT_TRUE(core_.idle());
}

TEST_F(RouterCoreTest, TheIdsOfAReplayFollowThePrompt) {
  Up(0);
  Submit submit;
  submit.key.request = RequestId{1};
  submit.tokens = std::make_shared<const std::vector<TokenId>>(std::vector<TokenId>{7, 8, 9});
  submit.num_prompt = 3;
  submit.stop.max_tokens = 10;
  submit.sampling.num_prompt_logprobs = 2;
  ASSERT_TRUE(core_.OnArrival(submit, 1, now_, &out_).ok());
  Up(0, 2);  // a restart: another life, the same name
  ASSERT_EQ(out_.dispatch.size(), 2u);
  EXPECT_EQ(out_.dispatch[1].submit.sampling.num_prompt_logprobs, 2) << "nobody has seen them";
  EXPECT_EQ(core_.workers()[0].load_tokens(), 3);
  EXPECT_TRUE(Token(0, 1, 0, 50, FinishReason::kNone, 0, 1));
  Up(0, 3);
  ASSERT_EQ(out_.dispatch.size(), 3u);
  EXPECT_EQ(*out_.dispatch[2].submit.tokens, (std::vector<TokenId>{7, 8, 9, 50}));
  EXPECT_EQ(out_.dispatch[2].submit.num_prompt, 3);
  EXPECT_EQ(out_.dispatch[2].submit.sampling.num_prompt_logprobs, -1);
  EXPECT_TRUE(Token(0, 1, 1, 51, FinishReason::kNone, 0, 2));
  Up(0, 4);
  EXPECT_EQ(*out_.dispatch.back().submit.tokens, (std::vector<TokenId>{7, 8, 9, 50, 51}));
  EXPECT_EQ(out_.dispatch.back().submit.submission, 1u) << "counted anew for each life";
}

TEST_F(RouterCoreTest, ARequestThatKillsItsWorkersEnds) {
  Up(0);
  ASSERT_TRUE(Arrive(1, 5).ok());
  const int32_t allowed = ReplayLimits{}.max_replays;
  for (int32_t i = 0; i < allowed; ++i) Up(0, static_cast<uint64_t>(2 + i));
  EXPECT_TRUE(out_.ended.empty());
  Up(0, 100);
  ASSERT_EQ(out_.ended.size(), 1u);
  EXPECT_EQ(out_.ended[0].key, (SampleKey{RequestId{1}, 0, static_cast<uint32_t>(allowed)}));
  EXPECT_EQ(out_.ended[0].why.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(core_.idle());
}

TEST_F(RouterCoreTest, ARequestThatGetsFurtherIsReplayedForEver) {
  Up(0);
  ASSERT_TRUE(Arrive(1, 5).ok());
  const auto allowed = static_cast<uint32_t>(ReplayLimits{}.max_replays);
  uint32_t attempt = 0;
  for (int32_t token = 0; token < 9; ++token) {
    EXPECT_TRUE(Token(0, 1, token, 30 + token, FinishReason::kNone, 0, attempt));
    // As often as one may be lost without having got further.
    for (uint32_t i = 0; i < allowed; ++i) Up(0, 2 + attempt++);
    ASSERT_TRUE(out_.ended.empty());
  }
  Up(0, 2 + attempt++);
  ASSERT_EQ(out_.ended.size(), 1u);
  EXPECT_EQ(out_.ended[0].why.code(), absl::StatusCode::kUnavailable);
}

TEST_F(RouterCoreTest, ACancelledRequestIsNotReplayed) {
  Up(0);
  Up(1);
  ASSERT_TRUE(Arrive(1, 5).ok());
  core_.OnCancel(RequestId{1}, now_, &out_);
  core_.OnWorkerDown(WorkerId{0}, now_, &out_);
  ASSERT_EQ(out_.ended.size(), 1u);
  EXPECT_EQ(out_.ended[0].finish, FinishReason::kCancelled);
  EXPECT_EQ(out_.dispatch.size(), 1u);
}

TEST_F(RouterCoreTest, WhoCouldRunNowhereWaitsForAWorkerForAWhile) {
  const Duration wait = ReplayLimits{}.worker_wait;
  Up(0);
  ASSERT_TRUE(Arrive(1, 5).ok());
  ASSERT_TRUE(Arrive(2, 400).ok());
  core_.OnWorkerDown(WorkerId{0}, now_, &out_);
  EXPECT_TRUE(out_.ended.empty());
  EXPECT_EQ(core_.num_pooled(), 2);
  EXPECT_EQ(core_.NextWake(), now_ + wait);
  out_.Clear();
  // A small worker comes: it takes what it can.
  core_.OnWorkerUp(
      {.worker = WorkerId{3}, .incarnation = 1, .kv_capacity_tokens = 100, .max_context = 100, .slots = 4},
      now_, &out_);
  ASSERT_EQ(out_.dispatch.size(), 1u);
  EXPECT_EQ(out_.dispatch[0].submit.key, (SampleKey{RequestId{1}, 0, 1}));
  EXPECT_TRUE(Token(3, 1, 0, 30, FinishReason::kStop, 0, 1));
  now_ = core_.NextWake();
  core_.OnTimer(now_, &out_);
  ASSERT_EQ(out_.ended.size(), 1u);
  EXPECT_EQ(out_.ended[0].key.request, RequestId{2});
  EXPECT_EQ(out_.ended[0].why.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(core_.NextWake(), Time::Never());
  EXPECT_EQ(core_.num_pooled(), 0);
}

TEST_F(RouterCoreTest, ARefusedSampleEndsWithTheWorkersReason) {
  Up(0);
  ASSERT_TRUE(Arrive(1, 5).ok());
  const absl::Status why = ToStatus({.reason = RefusalReason::kKvTooSmall, .message = "too long"});
  core_.OnRefused(WorkerId{0}, {RequestId{1}, 0, 0}, why, now_, &out_);
  ASSERT_EQ(out_.ended.size(), 1u);
  EXPECT_EQ(RefusalOf(out_.ended[0].why)->reason, RefusalReason::kKvTooSmall);
}

TEST_F(RouterCoreTest, WhatADrainingWorkerDoesNotTakeGoesElsewhere) {
  Up(0);
  ASSERT_TRUE(Arrive(1, 5, 2).ok());
  const absl::Status why = ToStatus({.reason = RefusalReason::kDraining, .message = "worker is draining"});
  core_.OnRefused(WorkerId{0}, {RequestId{1}, 1, 0}, why, now_, &out_);
  EXPECT_TRUE(out_.ended.empty());
  ASSERT_EQ(out_.cancel.size(), 1u) << "it had taken the other sample";
  EXPECT_EQ(core_.NextWake(), now_ + ReplayLimits{}.worker_wait);
  EXPECT_EQ(RefusalOf(Arrive(2, 5))->reason, RefusalReason::kNoWorker) << "and it gets nothing more";
  core_.OnRefused(WorkerId{0}, {RequestId{1}, 0, 0}, why, now_, &out_);
  out_.Clear();
  Up(1);
  ASSERT_EQ(out_.dispatch.size(), 2u);
  EXPECT_EQ(out_.dispatch[0].submit.key, (SampleKey{RequestId{1}, 0, 1}));
  EXPECT_EQ(out_.dispatch[1].worker, WorkerId{1});
}

TEST_F(RouterCoreTest, AWorkerThatLosesATokenIsLeftAndTheRequestGoesOn) {
  Up(0);
  ASSERT_TRUE(Arrive(1, 5, 2).ok());
  EXPECT_TRUE(Token(0, 1, 0, 30));
  EXPECT_TRUE(Token(0, 1, 0, 40, FinishReason::kNone, 1));
  out_.Clear();
  EXPECT_FALSE(Token(0, 1, 2, 32)) << "31 is missing";
  ASSERT_EQ(out_.leave.size(), 2u) << "both, since they share a prompt";
  EXPECT_EQ(out_.leave[1].worker, WorkerId{0});
  EXPECT_EQ(out_.leave[1].sample, (SampleKey{RequestId{1}, 1, 0}));
  EXPECT_TRUE(out_.cancel.empty()) << "that would end the next attempt, too";
  ASSERT_EQ(out_.dispatch.size(), 2u) << "there is no other worker";
  EXPECT_EQ(out_.dispatch[0].submit.key, (SampleKey{RequestId{1}, 0, 1}));
  EXPECT_EQ(out_.dispatch[0].submit.num_emitted, 1);
  EXPECT_FALSE(Token(0, 1, 3, 33)) << "the old attempt goes on until it hears of it";
  EXPECT_FALSE(Token(0, 1, -1, -1, FinishReason::kCancelled)) << "and ends";
  EXPECT_TRUE(Token(0, 1, 1, 31, FinishReason::kNone, 0, 1));
  EXPECT_THAT(*core_.Emitted(RequestId{1}, 0), ::testing::ElementsAre(30, 31));
  EXPECT_EQ(core_.workers()[0].num_bound, 2);
  const RouterCounters& counters = core_.counters();
  EXPECT_EQ(counters.gap_events, 1u);
  EXPECT_EQ(counters.replayed_for[static_cast<size_t>(ReplayReason::kGap)], 2u);
  EXPECT_EQ(counters.replayed, 2u);
}

TEST_F(RouterCoreTest, WhatAWorkerNoLongerKnowsOfGoesOn) {
  Up(0);
  ASSERT_TRUE(Arrive(1, 5).ok());
  ASSERT_TRUE(Arrive(2, 5).ok());
  EXPECT_TRUE(Token(0, 1, 0, 30));
  out_.Clear();
  WorkerState state = State(0, 1, 1, 5);
  state.num_running = 0;
  core_.OnWorkerState(state, now_, &out_);
  EXPECT_TRUE(out_.empty()) << "the second is on its way";
  state.sequence_number = state.last_submission = 2;
  core_.OnWorkerState(state, now_, &out_);
  ASSERT_EQ(out_.dispatch.size(), 2u);
  EXPECT_EQ(out_.dispatch[0].submit.key, (SampleKey{RequestId{1}, 0, 1}));
  EXPECT_EQ(out_.dispatch[0].submit.num_emitted, 1);
}

TEST_F(RouterCoreTest, ARequestWhoseTokensAlwaysGetLostEnds) {
  Up(0);
  ASSERT_TRUE(Arrive(1, 5).ok());
  for (uint32_t attempt = 0; attempt <= 5; ++attempt) {
    EXPECT_TRUE(out_.ended.empty());
    EXPECT_FALSE(Token(0, 1, 1, 31, FinishReason::kNone, 0, attempt));
  }
  ASSERT_EQ(out_.ended.size(), 1u);
  EXPECT_EQ(out_.ended[0].why.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(out_.leave.size(), 6u) << "the last attempt is stopped as well";
  EXPECT_TRUE(core_.idle());
}

TEST_F(RouterCoreTest, AWorkerThatAcceptsAndNeverAnswersIsGivenUp) {
  const Duration timeout = ReplayLimits{}.progress_timeout;
  Up(0);
  now_ = now_ + Duration::Seconds(1000);
  EXPECT_TRUE(core_.NextWake().is_never()) << "an idle worker owes nothing";
  ASSERT_TRUE(Arrive(1, 5).ok());
  const Time sent = now_;
  EXPECT_EQ(core_.NextWake(), sent + timeout);
  Up(1);
  now_ = now_ + Duration::Seconds(1);
  core_.OnWorkerState(State(0, 1, 1, 5), now_, &out_);
  EXPECT_EQ(core_.NextWake(), sent + timeout) << "it says that it lives, but not that it works";
  out_.Clear();
  now_ = core_.NextWake();
  core_.OnTimer(now_, &out_);
  EXPECT_THAT(out_.given_up, ::testing::ElementsAre(WorkerId{0}));
  ASSERT_EQ(out_.dispatch.size(), 1u);
  EXPECT_EQ(out_.dispatch[0].worker, WorkerId{1});
  EXPECT_EQ(out_.dispatch[0].submit.key, (SampleKey{RequestId{1}, 0, 1}));
  EXPECT_EQ(core_.workers().size(), 1u);
  core_.OnWorkerDown(WorkerId{0}, now_, &out_);  // its link ends
  EXPECT_FALSE(Token(0, 1, 0, 30)) << "it wakes up too late";
  const RouterCounters& counters = core_.counters();
  EXPECT_EQ(counters.given_up, 1u);
  EXPECT_EQ(counters.replayed_for[static_cast<size_t>(ReplayReason::kHung)], 1u);
  EXPECT_EQ(counters.replayed_for[static_cast<size_t>(ReplayReason::kWorkerLost)], 0u);
  EXPECT_TRUE(Token(1, 1, 0, 30, FinishReason::kStop, 0, 1));
  now_ = core_.NextWake();
  core_.OnTimer(now_, &out_);
  EXPECT_EQ(counters.given_up, 1u) << "the other one has nothing to do any more";
}

TEST_F(RouterCoreTest, TokensAndStepsAreProgress) {
  const Duration timeout = ReplayLimits{}.progress_timeout, while_{timeout.ns * 2 / 3};
  Up(0);
  ASSERT_TRUE(Arrive(1, 5).ok());
  WorkerState state = State(0, 1, 1, 5);
  for (int i = 0; i < 6; ++i) {
    now_ = now_ + while_;
    if (core_.NextWake() <= now_) core_.OnTimer(now_, &out_);
    if (i % 2 == 0) {
      EXPECT_TRUE(Token(0, 1, i / 2, 30));
    } else {
      ++state.sequence_number;
      state.step = StepId{Value(state.step) + 1};
      core_.OnWorkerState(state, now_, &out_);
    }
    EXPECT_TRUE(out_.given_up.empty()) << i;
  }
  const Time last = now_;
  for (int i = 0; i < 3 && out_.given_up.empty(); ++i) {
    now_ = core_.NextWake();
    core_.OnTimer(now_, &out_);
  }
  EXPECT_EQ(out_.given_up.size(), 1u);
  EXPECT_EQ(now_, last + timeout);
}

// The router stood still, or its clock jumped: what the workers said meanwhile may not have been heard yet.
TEST_F(RouterCoreTest, ARouterThatWasLateItselfListensFirst) {
  Up(0);
  Up(1);
  ASSERT_TRUE(Arrive(1, 5).ok());
  ASSERT_TRUE(Arrive(2, 5).ok());
  now_ = core_.NextWake() + Duration::Seconds(3600);
  core_.OnTimer(now_, &out_);
  EXPECT_TRUE(out_.given_up.empty());
  EXPECT_GT(core_.NextWake(), now_);
  EXPECT_TRUE(Token(1, 2, 0, 30));
  now_ = core_.NextWake();
  core_.OnTimer(now_, &out_);
  EXPECT_THAT(out_.given_up, ::testing::ElementsAre(WorkerId{0}));
}

TEST_F(RouterCoreTest, AWorkerThatKeepsFailingGetsNothingNewForAWhile) {
  for (uint32_t id = 0; id < 3; ++id) Up(id);
  const OutlierOptions rule;
  uint64_t request = 0;
  core_.OnWorkerState(State(1, 1, 0, 100), now_, &out_);
  core_.OnWorkerState(State(2, 1, 0, 100), now_, &out_);
  for (int32_t i = 0; i < rule.failures; ++i) {
    EXPECT_TRUE(core_.workers()[0].accepts);
    now_ = now_ + Duration::Milliseconds(1);
    core_.OnWorkerState(State(0, request + 1, request, 0), now_, &out_);
    ASSERT_TRUE(Arrive(++request, 1).ok());
    ASSERT_EQ(out_.dispatch.back().worker, WorkerId{0}) << "it fails fast, and so is the least loaded";
    TokenEvent event;
    event.key = {RequestId{request}, 0, 0};
    event.finish = FinishReason::kError;
    event.at = now_;
    EXPECT_TRUE(core_.OnTokenEvent(WorkerId{0}, event, now_, &out_));
  }
  EXPECT_FALSE(core_.workers()[0].accepts);
  EXPECT_EQ(core_.counters().ejections, 1u);
  ASSERT_TRUE(Arrive(++request, 1).ok());
  EXPECT_NE(out_.dispatch.back().worker, WorkerId{0});
  WorkerState state = State(0, 100, request, 0);
  core_.OnWorkerState(state, now_, &out_);
  EXPECT_FALSE(core_.workers()[0].accepts) << "whatever it says itself";
  EXPECT_EQ(core_.NextWake(), now_ + rule.first);
  now_ = core_.NextWake();
  core_.OnTimer(now_, &out_);
  EXPECT_TRUE(core_.workers()[0].accepts);
}

// A policy that never places anything.
class Hoarder final : public RoutePolicy {
 public:
  void Assign(const ClusterView&, absl::Span<const Waiting>, Time, Assignment*) override {}
};

TEST(RouterPool, DeadlinesAndCancelsEndPooledRequests) {
  RouterCore core(AdmissionLimits{}, std::make_unique<Hoarder>());
  RouterOutput out;
  core.OnWorkerUp({.worker = WorkerId{0}, .kv_capacity_tokens = 1000, .max_context = 1000}, Time{}, &out);
  Submit submit;
  submit.num_prompt = 5;
  submit.stop.max_tokens = 5;
  submit.key.request = RequestId{1};
  submit.deadline = Time{} + Duration::Milliseconds(3);
  ASSERT_TRUE(core.OnArrival(submit, 2, Time{}, &out).ok());
  submit.key.request = RequestId{2};
  submit.deadline = Time::Never();
  ASSERT_TRUE(core.OnArrival(submit, 1, Time{}, &out).ok());
  EXPECT_EQ(core.num_pooled(), 2);
  EXPECT_EQ(core.queued_tokens(), 10);
  EXPECT_EQ(core.NextWake(), Time{} + Duration::Milliseconds(3));
  core.OnTimer(core.NextWake(), &out);
  ASSERT_EQ(out.ended.size(), 2u);
  EXPECT_EQ(out.ended[0].finish, FinishReason::kDeadline);
  EXPECT_TRUE(core.NextWake().is_never());
  core.OnCancel(RequestId{2}, Time{}, &out);
  ASSERT_EQ(out.ended.size(), 3u);
  EXPECT_EQ(out.ended[2].finish, FinishReason::kCancelled);
  EXPECT_EQ(core.queued_tokens(), 0);
  EXPECT_TRUE(core.idle());
}

}  // namespace
}  // namespace orrery
