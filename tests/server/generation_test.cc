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
  void Start(uint32_t choices) {
    GenerationSpec spec;
    spec.prompt = std::make_shared<const std::vector<TokenId>>(4, 'p');
    spec.num_choices = choices;
    generation_ =
        std::make_unique<Generation>(RequestId{1}, std::move(spec), testing::ByteCodec(), writer_, Time{});
  }
  void Event(uint32_t choice, int32_t index, TokenId token, FinishReason finish = FinishReason::kNone,
             const std::string& error = "") {
    TokenEvent event;
    event.key = {RequestId{1}, choice, 0};
    event.index = index;
    event.token = token;
    event.finish = finish;
    event.error = error;
    generation_->OnEvent(event);
  }
  bool Pump(int64_t ms, int room) {
    writer_->room = room;
    return generation_->Pump({}, Time{} + Duration::Milliseconds(ms));
  }
  Time At(int64_t ms) const { return Time{} + Duration::Milliseconds(ms); }

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

}  // namespace
}  // namespace orrery
