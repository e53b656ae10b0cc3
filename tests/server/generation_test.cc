#include "server/delivery/generation.h"

#include <memory>

#include "gtest/gtest.h"
#include "server/base/errors.h"
#include "tests/server/byte_codec.h"

namespace orrery {
namespace {

// Takes as many messages as it has room for.
class Window final : public StreamWriter {
 public:
  bool TryWrite(const orrery::v1::GenerateResponse&) override { return room > 0 && room-- > 0; }
  bool TryWriteAndFinish(const orrery::v1::GenerateResponse& message, const grpc::Status& status) override {
    end = status, last = message;
    return TryWrite(message);
  }
  void Finish(const grpc::Status& status, int64_t) override { end = status; }
  void Abort() override {}
  int room = 0;
  grpc::Status end;
  orrery::v1::GenerateResponse last;
};

class GenerationTest : public ::testing::Test {
 protected:
  void Start(uint32_t choices, size_t prompt_tokens = 4) {
    GenerationSpec spec;
    spec.prompt = std::make_shared<const std::vector<TokenId>>(prompt_tokens, 'p');
    spec.num_choices = choices;
    spec.slo = slo_;
    generation_ =
        std::make_unique<Generation>(RequestId{1}, std::move(spec), testing::ByteCodec(), writer_, Time{});
  }
  void Event(uint32_t choice, int32_t index, TokenId token, FinishReason finish = FinishReason::kNone,
             const std::string& error = "", int64_t at_ms = 0) {
    TokenEvent event;
    event.at = At(at_ms);
    event.key = {RequestId{1}, choice, 0};
    event.index = index;
    event.token = token;
    event.finish = finish;
    event.error = error;
    generation_->OnEvent(event);
  }
  bool Pump(int64_t ms, int room) {
    writer_->room = room;
    return generation_->Pump(Time{} + Duration::Milliseconds(ms));
  }
  Time At(int64_t ms) const { return Time{} + Duration::Milliseconds(ms); }

  Slo slo_;
  std::shared_ptr<Window> writer_ = std::make_shared<Window>();
  std::unique_ptr<Generation> generation_;
};

// Several choices always have something to send to a client that takes one message at a time.
TEST_F(GenerationTest, AClientThatTakesSomethingIsNotBlocked) {
  Start(2);
  Pump(0, 1);
  for (int i = 0; i < 20; ++i) {
    Event(0, i, 'a');
    Event(1, i, 'b');
    const int64_t now = 10 * (i + 1);
    Pump(now, 1);
    EXPECT_EQ(generation_->blocked_since(), At(now));
    Pump(now + 5, 0);
    EXPECT_EQ(generation_->blocked_since(), At(now)) << "nothing was taken";
  }
  Pump(500, 2);
  EXPECT_TRUE(generation_->blocked_since().is_never()) << "everything was taken";
}

// What a step says of the prompt at once may be more than a client may leave unread, and one that keeps pace
// on the whole may lag by a few steps: what is beyond counts, until it is taken, message by message and
// before anything else.
TEST_F(GenerationTest, WhatAClientLeavesOfThePromptIsPendingBeyondAFewSteps) {
  Start(1, 7);
  const auto score = [&](int32_t begin, int32_t count) {
    auto logprobs = std::make_shared<PromptLogprobs>();
    logprobs->begin = begin;
    logprobs->num_top = 6000;  // a message each
    logprobs->chosen.resize(static_cast<size_t>(count));
    logprobs->top.resize(static_cast<size_t>(count) * 6000, {7, -1.0f});
    TokenEvent event;
    event.key = {RequestId{1}, 0, 0};
    event.prompt_logprobs = std::move(logprobs);
    generation_->OnEvent(event);
  };
  Pump(0, 1);
  for (int32_t position = 1; position <= 5; ++position) score(position, 1);
  EXPECT_EQ(generation_->pending_bytes(), 0u) << "one is being sent, and four are ahead";
  score(4, 2);  // again, by another attempt
  EXPECT_EQ(generation_->pending_bytes(), 0u);
  score(5, 2);  // the last is new
  EXPECT_GT(generation_->pending_bytes(), 40'000u);
  Event(0, 0, 'a', FinishReason::kLength);
  Pump(1, 1);
  EXPECT_LT(generation_->pending_bytes(), 1000u);
  EXPECT_FALSE(Pump(2, 6)) << "five messages about the prompt, and the token";
  EXPECT_TRUE(Pump(3, 1));
  EXPECT_EQ(writer_->last.finished().usage().completion_tokens(), 1u);
}

TEST_F(GenerationTest, WhatTheEngineSaysStaysInside) {
  Start(1);
  Event(0, 0, -1, FinishReason::kError, "/usr/lib/secret");
  EXPECT_TRUE(Pump(0, 2));
  EXPECT_EQ(writer_->end.error_code(), grpc::INTERNAL);
  EXPECT_EQ(ErrorInfoOf(writer_->end)->reason(), "engine_error");
  EXPECT_EQ(writer_->end.error_message().find("secret"), std::string::npos);
  EXPECT_FALSE(writer_->last.finished().error().empty());
  EXPECT_EQ(writer_->last.finished().error().find("secret"), std::string::npos);
}

TEST_F(GenerationTest, TheFinalMessageHasTheDecisionsAboutThisRequest) {
  Start(1);
  DecisionRecord route, batch;
  route.policy = "jsq-tokens", route.value = 7;
  batch.policy = "fcfs", batch.bound = 1;
  generation_->set_route_decision(route);
  generation_->set_batch_decision(batch);
  Event(0, 0, 'a', FinishReason::kLength);
  EXPECT_TRUE(Pump(0, 3));
  const auto& decisions = writer_->last.finished().decisions();
  ASSERT_EQ(decisions.size(), 2);
  EXPECT_EQ(decisions[0].kind(), "route");
  EXPECT_EQ(decisions[0].policy(), "jsq-tokens");
  EXPECT_EQ(decisions[0].value(), 7);
  EXPECT_FALSE(decisions[0].has_bound());
  EXPECT_EQ(decisions[1].kind(), "batch");
  EXPECT_EQ(decisions[1].bound(), 1);
}

TEST_F(GenerationTest, WhoNeverRanHasNoDecisionOfABatchPolicy) {
  Start(1);
  DecisionRecord route;
  route.policy = "jsq-tokens";
  generation_->set_route_decision(route);
  generation_->EndAll(FinishReason::kDeadline);
  EXPECT_TRUE(Pump(0, 2));
  ASSERT_EQ(writer_->last.finished().decisions_size(), 1);
  EXPECT_EQ(writer_->last.finished().decisions(0).kind(), "route");
}

// First token at 100 ms, two more after 20 ms each.
TEST_F(GenerationTest, ObjectivesAreMetUpToTheirLimit) {
  const auto met = [&](int64_t ttft_ms, int64_t tpot_ms, Outcome outcome = Outcome::kLength) {
    slo_ = {};
    if (ttft_ms > 0) slo_.ttft = Duration::Milliseconds(ttft_ms);
    if (tpot_ms > 0) slo_.tpot = Duration::Milliseconds(tpot_ms);
    Start(1);
    for (int i = 0; i < 3; ++i) {
      Event(0, i, 'a', i == 2 ? FinishReason::kLength : FinishReason::kNone, "", 100 + 20 * i);
    }
    return generation_->MetSlo(outcome);
  };
  EXPECT_FALSE(met(0, 0).has_value()) << "no objective";
  EXPECT_EQ(met(100, 0), true);
  EXPECT_EQ(met(99, 0), false);
  EXPECT_EQ(met(0, 20), true);
  EXPECT_EQ(met(0, 19), false);
  EXPECT_EQ(met(100, 20), true);
  EXPECT_EQ(met(100, 19), false);
  EXPECT_EQ(met(100, 20, Outcome::kDeadline), false);
  EXPECT_EQ(met(100, 20, Outcome::kFailed), false);
  EXPECT_FALSE(met(100, 20, Outcome::kCancelled).has_value());
  slo_.ttft = Duration::Seconds(1.0);
  Start(1);
  EXPECT_EQ(generation_->MetSlo(Outcome::kFailed), false) << "no token came";
  Event(0, 0, 'a', FinishReason::kLength, "", 100);
  slo_.tpot = Duration::Milliseconds(1);
  EXPECT_EQ(generation_->MetSlo(Outcome::kLength), true) << "one token has no time per token";
}

}  // namespace
}  // namespace orrery
