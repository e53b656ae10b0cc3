// A request that its client gives up, at every stage: the sequence is gone within one step, and nothing
// leaks.
#include <algorithm>
#include <future>
#include <map>

#include "gtest/gtest.h"
#include "tests/server/raw_http2.h"
#include "tests/server/server_harness.h"

namespace orrery::testing {
namespace {

class CancelTest : public ::testing::Test {
 protected:
  bool CountedAs(const char* outcome, double count) {
    return Eventually([&] {
      return harness_.Metric("orrery_requests_total", {{"outcome", outcome}}) == count;
    });
  }
  bool Idle() {
    return Eventually([&] { return harness_.IsIdle(); });
  }

  Harness harness_;
};

// While a step is held, the client cancels; the steps after the release are counted until nothing runs.
TEST_F(CancelTest, WhileDecodingFreesTheSequenceWithinOneStep) {
  harness_.engine().step_us = 2000;  // it must not be through before a slow client has read the first token
  int64_t steps_at_cancel = 0;
  const Answer answer =
      harness_.Generate(Harness::Request("x", 4000), nullptr,
                        [&](const v1::GenerateResponse& message, grpc::ClientContext& context) {
                          if (!message.has_delta() || steps_at_cancel > 0) return;
                          harness_.engine().Hold();
                          steps_at_cancel = harness_.engine().num_steps;
                          context.TryCancel();
                        });
  EXPECT_EQ(answer.status.error_code(), grpc::CANCELLED);
  ASSERT_TRUE(CountedAs("cancelled", 1));  // the server knows, and a step is still held
  harness_.engine().Release();
  ASSERT_TRUE(Idle());
  EXPECT_LE(harness_.engine().num_steps,
            steps_at_cancel + 2);  // the one held, and the one it was cancelled in
  EXPECT_TRUE(Eventually([&] { return harness_.engine().num_released == harness_.engine().num_admitted; }));
}

TEST_F(CancelTest, WhileQueued) {
  harness_.engine().Hold();
  auto first = std::async(std::launch::async, [&] { return harness_.Generate(Harness::Request("a", 2)); });
  ASSERT_TRUE(Eventually([&] { return harness_.Load().open_streams() == 1; }));
  grpc::ClientContext context;
  auto reader = harness_.stub().Generate(&context, Harness::Request("b", 2));
  ASSERT_TRUE(Eventually([&] { return harness_.Load().open_streams() == 2; }));
  context.TryCancel();
  v1::GenerateResponse message;
  while (reader->Read(&message)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::CANCELLED);
  EXPECT_TRUE(CountedAs("cancelled", 1));
  harness_.engine().Release();
  EXPECT_TRUE(first.get().status.ok());
  EXPECT_TRUE(Idle());
}

// The prompt needs two chunks; the first one is held in the engine when the client gives up.
TEST_F(CancelTest, DuringPrefillChunks) {
  const int64_t admitted = harness_.engine().num_admitted, steps = harness_.engine().num_steps;
  harness_.engine().Hold();
  grpc::ClientContext context;
  auto reader = harness_.stub().Generate(&context, Harness::Request(std::string(3900, 'p'), 10));
  ASSERT_TRUE(Eventually([&] { return harness_.engine().num_admitted == admitted + 1; }));
  context.TryCancel();
  v1::GenerateResponse message;
  while (reader->Read(&message)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::CANCELLED);
  ASSERT_TRUE(CountedAs("cancelled", 1));
  harness_.engine().Release();
  EXPECT_TRUE(Idle());
  EXPECT_TRUE(Eventually([&] { return harness_.engine().num_released == harness_.engine().num_admitted; }));
  // The chunk that was held, and the step in which the engine was told of the release.
  EXPECT_LE(harness_.engine().num_steps, steps + 2);
}

TEST_F(CancelTest, RightAfterTheCallAndManyTimes) {
  for (int i = 0; i < 200; ++i) {
    grpc::ClientContext context;
    auto reader = harness_.stub().Generate(&context, Harness::Request("x", 50));
    context.TryCancel();
    context.TryCancel();
    v1::GenerateResponse message;
    while (reader->Read(&message)) {
    }
    reader->Finish();
  }
  EXPECT_TRUE(Idle());
  EXPECT_TRUE(harness_.Generate(Harness::Request("x", 5)).status.ok());
}

TEST_F(CancelTest, AfterTheEndMeansNothing) {
  const Answer answer =
      harness_.Generate(Harness::Request("x", 3), nullptr,
                        [&](const v1::GenerateResponse& message, grpc::ClientContext& context) {
                          if (message.has_finished()) context.TryCancel();
                        });
  EXPECT_EQ(answer.finished.size(), 1u);
  EXPECT_TRUE(CountedAs("length", 1));
  EXPECT_TRUE(Idle());
}

// The socket is closed under running generations, without a word.
TEST_F(CancelTest, DisconnectEndsAllRequestsOfTheConnection) {
  constexpr uint32_t kCalls = 10;
  harness_.engine().step_us = 2000;
  int64_t steps_at_end = 0;
  {
    RawHttp2 client(harness_.server().grpc_port());
    const std::string message = GrpcMessage(Harness::Request("x", 4000).SerializeAsString());
    for (uint32_t call = 0; call < kCalls; ++call) {
      ASSERT_TRUE(client.Send(GenerateHeaders(2 * call + 1)));
      ASSERT_TRUE(client.Send(Http2Frame{kData, kEndStream, 2 * call + 1, message}));
    }
    std::map<uint32_t, int> messages;  // by stream; the second one has a token
    const auto all_run = [&] {
      return messages.size() == kCalls &&
             std::all_of(messages.begin(), messages.end(), [](const auto& m) { return m.second >= 2; });
    };
    while (!all_run()) {
      const auto frame = client.Read();
      ASSERT_TRUE(frame.has_value());
      if (frame->type == kData) ++messages[frame->stream];
    }
    harness_.engine().Hold();
    steps_at_end = harness_.engine().num_steps;
    EXPECT_EQ(harness_.Load().open_streams(), kCalls);
  }
  ASSERT_TRUE(CountedAs("cancelled", kCalls));  // while the engine still holds a step
  harness_.engine().Release();
  EXPECT_TRUE(Idle());
  EXPECT_LE(harness_.engine().num_steps, steps_at_end + 2);
  EXPECT_TRUE(Eventually([&] { return harness_.engine().num_released == harness_.engine().num_admitted; }));
}

TEST_F(CancelTest, DeadlineOfTheRequestEndsWithAFinalMessage) {
  harness_.engine().step_us = 2000;
  v1::GenerateRequest request = Harness::Request("x", 4000);
  request.mutable_slo()->set_deadline_ms(60);
  const Answer answer = harness_.Generate(request);
  EXPECT_EQ(answer.status.error_code(), grpc::DEADLINE_EXCEEDED);
  ASSERT_EQ(answer.finished.size(), 1u);
  EXPECT_EQ(answer.finished[0].finish_reason(), v1::FINISH_REASON_DEADLINE);
  EXPECT_EQ(answer.finished[0].usage().completion_tokens(), answer.tokens[0].size());
  EXPECT_TRUE(CountedAs("deadline", 1));
  EXPECT_TRUE(Idle());
}

TEST_F(CancelTest, DeadlinePassesEvenWhileTheEngineHangs) {
  harness_.engine().Hold();
  v1::GenerateRequest request = Harness::Request("x", 10);
  request.mutable_slo()->set_deadline_ms(20);
  const Answer answer = harness_.Generate(request);
  EXPECT_EQ(answer.status.error_code(), grpc::DEADLINE_EXCEEDED);
  harness_.engine().Release();
  EXPECT_TRUE(Idle());
}

// The client itself ends the call at its deadline, with a plain cancel. The server tells the two apart by its
// own clock, from when it has heard of the call: on a busy machine that can be so late that a deadline looks
// like a cancel, or that no call arrives at all. So: every call that arrived is counted as one of the two,
// and deadlines are recognised.
TEST_F(CancelTest, DeadlineOfTheCall) {
  harness_.engine().step_us = 2000;
  const auto count = [&](const char* outcome) {
    return harness_.Metric("orrery_requests_total", {{"outcome", outcome}});
  };
  int calls = 0;
  do {
    const Answer answer = harness_.Generate(Harness::Request("x", 4000), [](grpc::ClientContext& context) {
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(60));
    });
    EXPECT_EQ(answer.status.error_code(), grpc::DEADLINE_EXCEEDED);
    ASSERT_TRUE(Idle());
    ASSERT_LE(count("deadline") + count("cancelled"), ++calls);
  } while (count("deadline") == 0 && calls < 100);
  EXPECT_GT(count("deadline"), 0);
  EXPECT_EQ(count("length") + count("stop") + count("failed"), 0);
}

// One client reads nothing; the other one is served meanwhile, and the lazy one is ended at the bound.
TEST(SlowReader, IsBoundedAndHoldsUpNobody) {
  Harness::Setup setup;
  setup.config.stream_buffer_bytes.bytes = 4096;
  setup.limits.max_context = 1 << 17;
  setup.limits.num_blocks = 1 << 14;
  Harness harness(setup);
  grpc::ChannelArguments narrow;
  narrow.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 1024);
  narrow.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  auto stub = harness.NewStub(narrow);
  grpc::ClientContext context;
  auto reader = stub->Generate(&context, Harness::Request("lazy", 120'000));
  const Answer other = harness.Generate(Harness::Request("busy", 100));
  EXPECT_TRUE(other.status.ok());
  ASSERT_TRUE(Eventually([&] {
    return harness.Metric("orrery_requests_total", {{"outcome", "cancelled"}}) == 1;
  }));
  v1::GenerateResponse message;
  int64_t tokens = 0;
  while (reader->Read(&message)) tokens += message.delta().token_ids_size();
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_EQ(ErrorInfoOf(status)->reason(), "slow_reader");
  EXPECT_LT(tokens, 120'000);
  EXPECT_TRUE(Eventually([&] { return harness.IsIdle(); }));
}

TEST(SlowReader, WhoTakesNothingIsCutOff) {
  Harness::Setup setup;
  setup.config.write_timeout = Duration::Milliseconds(100);
  setup.limits.max_context = 1 << 17;
  setup.limits.num_blocks = 1 << 14;
  Harness harness(setup);
  grpc::ChannelArguments narrow;
  narrow.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 1024);
  narrow.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  auto stub = harness.NewStub(narrow);
  grpc::ClientContext context;
  auto reader = stub->Generate(&context, Harness::Request("lazy", 20'000));
  EXPECT_TRUE(Eventually([&] {  // although nobody has read a byte
    return harness.Metric("orrery_requests_total", {{"outcome", "cancelled"}}) == 1 && harness.IsIdle();
  }));
  v1::GenerateResponse message;
  while (reader->Read(&message)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

}  // namespace
}  // namespace orrery::testing
