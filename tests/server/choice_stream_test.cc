#include "server/delivery/choice_stream.h"

#include <memory>

#include "gtest/gtest.h"
#include "scheduler/base/random.h"
#include "tests/server/byte_codec.h"

namespace orrery {
namespace {

using Effect = ChoiceStream::Effect;

class ChoiceStreamTest : public ::testing::Test {
 protected:
  void Stops(const std::vector<std::string>& stops) { spec_.stop_strings = *StopStrings::Create(stops); }
  void Start() {
    stream_ = std::make_unique<ChoiceStream>(3, &spec_, testing::ByteCodec().NewStreamDecoder(true, {}));
  }
  Effect Token(int token, FinishReason finish = FinishReason::kNone) {
    TokenEvent event;
    event.index = next_++;
    event.token = token;
    event.finish = finish;
    event.at = {next_ * 1000};
    return stream_->OnEvent(event);
  }
  Effect End(FinishReason finish) {
    TokenEvent event;
    event.finish = finish;
    return stream_->OnEvent(event);
  }
  std::string Text() const { return stream_->delta_message().delta().text(); }

  GenerationSpec spec_;
  std::unique_ptr<ChoiceStream> stream_;
  int next_ = 0;
};

TEST_F(ChoiceStreamTest, TextAndIdsGatherUntilCleared) {
  Start();
  EXPECT_FALSE(stream_->has_delta());
  Token('a');
  Token('b');
  EXPECT_TRUE(stream_->has_delta());
  EXPECT_EQ(Text(), "ab");
  EXPECT_EQ(stream_->delta_message().delta().token_ids_size(), 2);
  EXPECT_EQ(stream_->delta_message().delta().choice(), 3u);
  EXPECT_GT(stream_->delta_bytes(), 0u);
  stream_->ClearDelta();
  EXPECT_FALSE(stream_->has_delta());
  EXPECT_EQ(stream_->delta_bytes(), 0u);
  Token('c');
  EXPECT_EQ(Text(), "c");
  EXPECT_EQ(stream_->delta_message().delta().choice(), 3u);
}

TEST_F(ChoiceStreamTest, NoHalfCharacterLeaves) {
  Start();
  Token(0xE2);
  Token(0x82);
  EXPECT_EQ(Text(), "");
  EXPECT_TRUE(stream_->has_delta());  // the ids are known
  Token(0xAC);
  EXPECT_EQ(Text(), "\xE2\x82\xAC");
  Token(0xE2);
  End(FinishReason::kLength);
  EXPECT_EQ(Text(), "\xE2\x82\xAC\xEF\xBF\xBD");
}

TEST_F(ChoiceStreamTest, StopStringHoldsBackItsBeginningAndCutsTheText) {
  Stops({"stop"});
  Start();
  for (const char c : std::string("a st")) EXPECT_EQ(Token(c), Effect::kProgress);
  EXPECT_EQ(Text(), "a ");
  EXPECT_EQ(Token('o'), Effect::kProgress);
  EXPECT_EQ(Token('p'), Effect::kStopString);
  EXPECT_EQ(Text(), "a ");
  EXPECT_TRUE(stream_->ended());
  EXPECT_EQ(stream_->num_tokens(), 6);
  EXPECT_EQ(Token('x'), Effect::kNone);  // made before the worker heard of it
  EXPECT_EQ(stream_->num_tokens(), 6);
  orrery::v1::Finished finished;
  stream_->FillFinished(&finished);
  EXPECT_EQ(finished.finish_reason(), orrery::v1::FINISH_REASON_STOP);
  EXPECT_EQ(finished.stop_text(), "stop");
}

TEST_F(ChoiceStreamTest, IncludeStopKeepsIt) {
  spec_.include_stop = true;
  Stops({"op"});
  Start();
  for (const char c : std::string("stop")) Token(c);
  EXPECT_EQ(Text(), "stop");
}

TEST_F(ChoiceStreamTest, HeldTextComesOutWhenTheChoiceEnds) {
  Stops({"stop"});
  Start();
  for (const char c : std::string("a st")) Token(c);
  EXPECT_EQ(Token('o', FinishReason::kLength), Effect::kProgress);
  EXPECT_EQ(Text(), "a sto");
}

TEST_F(ChoiceStreamTest, StopStringsSleepUntilMinTokens) {
  spec_.stop.min_tokens = 4;
  Stops({"aa"});
  Start();
  EXPECT_EQ(Token('a'), Effect::kProgress);
  EXPECT_EQ(Token('a'), Effect::kProgress);  // complete, but too early
  EXPECT_EQ(Token('a'), Effect::kProgress);
  EXPECT_EQ(Token('a'), Effect::kStopString);
  EXPECT_EQ(Text(), "aa");
}

TEST_F(ChoiceStreamTest, StopIdCountsAndHasNoText) {
  Start();
  Token('a');
  EXPECT_EQ(Token('b', FinishReason::kStop), Effect::kProgress);
  EXPECT_EQ(Text(), "a");
  EXPECT_EQ(stream_->num_tokens(), 2);
  orrery::v1::Finished finished;
  stream_->FillFinished(&finished);
  EXPECT_EQ(finished.stop_token_id(), static_cast<uint32_t>('b'));
}

TEST_F(ChoiceStreamTest, TokensSeenBeforeAreDropped) {
  Start();
  Token('a');
  next_ = 0;
  EXPECT_EQ(Token('a'), Effect::kNone);
  EXPECT_EQ(stream_->num_tokens(), 1);
}

TEST_F(ChoiceStreamTest, LogprobsGoWithTheirTokens) {
  Start();
  TokenEvent event;
  event.index = 0;
  event.token = 'a';
  event.logprobs = std::make_shared<TokenLogprobs>(TokenLogprobs{-0.5f, {{97, -0.5f}, {98, -1.5f}}});
  stream_->OnEvent(event);
  const auto& delta = stream_->delta_message().delta();
  ASSERT_EQ(delta.logprobs_size(), 1);
  EXPECT_EQ(delta.logprobs(0).id(), 97u);
  EXPECT_FLOAT_EQ(delta.logprobs(0).logprob(), -0.5f);
  ASSERT_EQ(delta.logprobs(0).top_size(), 2);
  EXPECT_EQ(delta.logprobs(0).top(1).id(), 98u);
}

// However the text is cut into deltas, their concatenation is the text up to the first stop string.
TEST_F(ChoiceStreamTest, RandomTextsAgreeWithPlainSearch) {
  RandomStream random(1);
  for (int round = 0; round < 500; ++round) {
    spec_ = {};
    const std::string stop(1 + random.Below(4), static_cast<char>('a' + random.Below(2)));
    const std::string other = std::string(1, 'b') + std::string(random.Below(3), 'a');
    Stops({stop, other});
    Start();
    next_ = 0;
    std::string all, got;
    bool stopped = false;
    for (int i = 0; i < 40 && !stopped; ++i) {
      const char c = static_cast<char>('a' + random.Below(3));
      all.push_back(c);
      stopped = Token(c) == Effect::kStopString;
      if (random.Below(3) == 0) {
        got += Text();
        stream_->ClearDelta();
      }
    }
    if (!stopped) End(FinishReason::kLength);
    got += Text();
    // The first position at which any stop string ends; the longest of those.
    size_t cut = all.size(), end = std::string::npos;
    for (const std::string& s : {stop, other}) {
      const size_t at = all.find(s);
      if (at == std::string::npos) continue;
      const size_t ends = at + s.size();
      if (ends < end || (ends == end && at < cut)) cut = at, end = ends;
    }
    EXPECT_EQ(stopped, end != std::string::npos);
    EXPECT_EQ(got, all.substr(0, cut)) << all << " stop " << stop << " or " << other;
  }
}

}  // namespace
}  // namespace orrery
