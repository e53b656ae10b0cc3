// Router and worker processes, in one process: streams, failures, refusals.
#include <array>
#include <future>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/stubs/logging.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "scheduler/base/random.h"
#include "scheduler/kv/block_hash.h"
#include "scheduler/types/refusal.h"
#include "server/daemon/worker_server.h"
#include "server/link/wire.h"
#include "tests/server/server_harness.h"

namespace orrery::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr int32_t kVocab = kByteVocab;
constexpr Time kNow{5'000'000'000};

Time Before(Time time, Duration duration) { return Time{time.ns - duration.ns}; }

Submit FullSubmit() {
  Submit submit;
  submit.key = {RequestId{77}, 3, 2};
  submit.submission = 41;
  submit.tokens = std::make_shared<const std::vector<TokenId>>(std::vector<TokenId>{1, 2, 3, 4});
  submit.num_prompt = 3;
  submit.num_emitted = 1;
  submit.sampling = {.temperature = 0.5f,
                     .top_k = 7,
                     .top_p = 0.9f,
                     .min_p = 0.1f,
                     .presence_penalty = -1,
                     .frequency_penalty = 1.5f,
                     .repetition_penalty = 1.1f,
                     .logit_bias = {{3, -4.0f}, {9, 2.0f}},
                     .seed = ~uint64_t{0} - 5,
                     .num_logprobs = 0,
                     .num_prompt_logprobs = 4};
  submit.stop = {.max_tokens = 20, .min_tokens = 2, .stop_ids = {5, 8}};
  submit.slo = {.ttft = Duration::Milliseconds(300), .tpot = Duration::Milliseconds(20)};
  submit.deadline = kNow + Duration::Seconds(2);
  submit.priority = -3;
  submit.tenant = 4;
  submit.application = 5;
  submit.traffic_class = 6;
  submit.cache_salt = ~uint64_t{0};
  return submit;
}

TEST(Wire, ASubmissionArrivesAsItWasSent) {
  const Submit sent = FullSubmit();
  orrery::v1::WireSubmit wire;
  ToWire(sent, nullptr, kNow, &wire);
  SharedTokens tokens;
  constexpr Time kLater{9'000'000'000};
  const auto got = FromWire(wire, kLater, &tokens);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->key, sent.key);
  EXPECT_EQ(*got->tokens, *sent.tokens);
  EXPECT_EQ(got->deadline, kLater + Duration::Seconds(2)) << "what remains, on the other clock";
  EXPECT_EQ(got->sampling.logit_bias, sent.sampling.logit_bias);
  EXPECT_EQ(got->stop.stop_ids, sent.stop.stop_ids);
  // Sent on from there it is the same message: nothing was lost on the way.
  orrery::v1::WireSubmit again;
  ToWire(*got, nullptr, kLater, &again);
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(wire, again)) << again.DebugString();

  // The samples of a prompt carry it once.
  orrery::v1::WireSubmit second;
  ToWire(sent, sent.tokens, kNow, &second);
  EXPECT_EQ(second.tokens_size(), 0);
  EXPECT_EQ(FromWire(second, kLater, &tokens)->tokens, got->tokens);
  SharedTokens none;
  EXPECT_FALSE(FromWire(second, kLater, &none).ok());
}

WorkerReport FullReport() {
  WorkerReport report;
  TokenEvent token;
  token.key = {RequestId{9}, 1, 2};
  token.index = 0, token.token = 0, token.finish = FinishReason::kStop;
  token.at = Before(kNow, Duration::Milliseconds(3));
  auto logprobs = std::make_shared<TokenLogprobs>();
  logprobs->chosen = -0.5f;
  logprobs->top = {{3, -0.25f}, {0, -0.5f}};
  token.logprobs = logprobs;
  TokenEvent prompt;
  prompt.key = {RequestId{10}, 0, 0};
  prompt.at = kNow;
  auto scores = std::make_shared<PromptLogprobs>();
  scores->begin = 2, scores->num_top = 1, scores->chosen = {-1, -2}, scores->top = {{1, -1}, {2, -2}};
  prompt.prompt_logprobs = scores;
  TokenEvent failed;
  failed.key = {RequestId{11}, 0, 0};
  failed.finish = FinishReason::kError, failed.error = "broke", failed.at = kNow;
  report.events = {token, prompt, failed};
  SampleEnd end;
  end.key = token.key;
  end.report = {.cached_tokens = 16,
                .num_preemptions = 1,
                .arrived = Before(kNow, Duration::Seconds(1)),
                .first_scheduled = Before(kNow, Duration::Milliseconds(500)),
                .first_token = Time::Never(),
                .finished = kNow};
  report.ended = {end};
  report.refused = {{{RequestId{12}, 0, 1},
                     ToStatus({.reason = RefusalReason::kKvTooSmall,
                               .field = "max_tokens",
                               .limit = 9,
                               .actual = 12,
                               .message = "too many"})}};
  StepStats step;
  step.num_prefill_tokens = 5, step.num_decodes = 6, step.num_sequences = 7;
  step.shape.AddDecode(100);
  step.shape.AddChunk(16, 32);
  step.engine = Duration::Milliseconds(4), step.host = Duration::Microseconds(5);
  step.decision = Duration::Microseconds(2), step.predicted = Duration::Milliseconds(3);
  step.why = {.policy = "fcfs", .objective = "order of arrival", .value = 2, .bound = 1, .work = 11};
  report.steps = {step};
  WorkerState& state = report.state;
  state.sequence_number = 5, state.at = kNow, state.step = StepId{12}, state.last_submission = 40;
  state.kv_tokens = 1 << 20, state.blocks_total = 9, state.blocks_free = 3, state.blocks_cached = 2;
  state.free_slots = 4, state.num_running = 2, state.num_waiting = 1, state.waiting_prompt_tokens = 77;
  state.running_prompt_tokens = 3, state.leaving_tokens[2] = 16, state.step_time = Duration::Milliseconds(4);
  state.step_shape.AddDecode(70);
  state.draining = true;
  state.prefix_events = {{{1, 2}, true}, {{3, ~uint64_t{0}}, false}};
  state.prefix_event_sequence = 9, state.prefixes_anew = true;
  report.preemptions = 1, report.prefix_hit_tokens = 2, report.policy_fallbacks = 3;
  report.more_follow = true;
  return report;
}

TEST(Wire, AReportArrivesAsItWasSent) {
  orrery::v1::WireReport wire;
  ToWire(FullReport(), 3, kNow, &wire);
  const Time later = kNow + Duration::Seconds(100);
  const auto got = FromWire(wire, kVocab, later);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->events[0].at, Before(later, Duration::Milliseconds(3)));
  EXPECT_EQ(got->events[0].logprobs->top, FullReport().events[0].logprobs->top);
  EXPECT_EQ(got->events[1].index, -1);
  EXPECT_EQ(got->events[2].error, "broke");
  EXPECT_TRUE(got->ended[0].report.first_token.is_never());
  EXPECT_EQ(RefusalOf(got->refused[0].why)->limit, 9);
  EXPECT_EQ(got->steps[0].why.policy, "fcfs");
  EXPECT_EQ(got->state.leaving_tokens[2], 16);
  EXPECT_EQ(got->state.prefix_events, FullReport().state.prefix_events);
  orrery::v1::WireReport again;
  ToWire(*got, 3, later, &again);
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(wire, again)) << again.DebugString();
}

TEST(Wire, NonsenseIsRefused) {
  const auto refused = [](const std::function<void(orrery::v1::WireReport*)>& change) {
    orrery::v1::WireReport wire;
    ToWire(FullReport(), 0, kNow, &wire);
    change(&wire);
    return !FromWire(wire, kVocab, kNow).ok();
  };
  EXPECT_FALSE(refused([](auto*) {}));
  EXPECT_TRUE(refused([](auto* wire) { wire->mutable_events(0)->set_token(kVocab); }));
  EXPECT_TRUE(refused([](auto* wire) { wire->mutable_events(0)->clear_index(); }));
  EXPECT_TRUE(refused([](auto* wire) { wire->mutable_events(0)->set_finish(6); }));
  EXPECT_TRUE(refused([](auto* wire) { wire->mutable_events(0)->mutable_logprobs()->add_top_ids(1); }));
  EXPECT_TRUE(refused([](auto* wire) { wire->mutable_events(1)->mutable_prompt_logprobs()->add_chosen(1); }));
  EXPECT_TRUE(refused([](auto* wire) { wire->mutable_refused(0)->set_reason(99); }));
  EXPECT_TRUE(refused([](auto* wire) { wire->mutable_state()->add_prefix_names(5); }));
  EXPECT_TRUE(refused([](auto* wire) {
    for (size_t i = 0; i < kMostPrefixEvents; ++i) {
      wire->mutable_state()->add_prefix_stored(true);
      wire->mutable_state()->add_prefix_names(i);
      wire->mutable_state()->add_prefix_names(0);
    }
  }));
}

// Whatever bytes come: an answer, and numbers within their types.
TEST(Wire, AnyBytesAreTakenOrRefused) {
  orrery::v1::WireReport report;
  ToWire(FullReport(), 0, kNow, &report);
  orrery::v1::WireSubmit submit;
  ToWire(FullSubmit(), nullptr, kNow, &submit);
  google::protobuf::SetLogHandler(nullptr);  // it would write a line for every message that is no UTF-8
  RandomStream random(7);
  int parsed = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = (round % 2 == 0 ? report.SerializeAsString() : submit.SerializeAsString());
    for (int i = 0; i < 3; ++i) bytes[random.Below(bytes.size())] = static_cast<char>(random.Below(256));
    orrery::v1::WireReport one;
    orrery::v1::WireSubmit other;
    if (round % 2 == 0 ? !one.ParseFromString(bytes) : !other.ParseFromString(bytes)) continue;
    ++parsed;
    SharedTokens tokens;
    if (round % 2 == 1) {
      (void)FromWire(other, kNow, &tokens);
    } else if (const auto got = FromWire(one, kVocab, kNow); got.ok()) {
      EXPECT_GE(got->state.kv_tokens, 0);
      EXPECT_GE(got->state.free_slots, 0);
      EXPECT_LE(got->state.kv_tokens + got->state.waiting_prompt_tokens, int64_t{1} << 41);
    }
  }
  EXPECT_GT(parsed, 1000);
}

// ------------------------------------------------------------------------------------------ whole processes

EngineLimits Limits() {
  return {.num_blocks = 256,
          .block_tokens = 16,
          .max_num_seqs = 16,
          .max_step_tokens = 512,
          .max_context = 1024,
          .vocab_size = kByteVocab};
}

ServerParts PartsOf(const std::string& digest) {
  ServerParts parts;
  parts.limits = Limits();
  parts.codec = std::make_unique<ByteCodec>();
  parts.defaults.end_ids = {kByteEos};
  parts.model.set_model("fake");
  parts.model.set_model_digest(digest);
  parts.model.set_tokenizer_digest("bytes");
  parts.config_digest = "config";
  return parts;
}

class TestWorker {
 public:
  explicit TestWorker(int ranks = 1, const std::string& digest = "weights", int port = 0,
                      Duration step_timeout = Duration::Seconds(60))
      : control_(std::make_shared<EngineControl>()) {
    spdlog::set_level(spdlog::level::off);
    ServerConfig config;
    config.role = "worker";
    config.step_timeout = step_timeout;
    config.listen = absl::StrCat("127.0.0.1:", port);
    config.metrics_listen = "";
    config.workers = ranks;
    ServerParts parts = PartsOf(digest);
    for (int i = 0; i < ranks; ++i) {
      parts.engine.executors.push_back(std::make_unique<FakeEngine>(Limits(), control_));
    }
    auto server = WorkerServer::Start(config, std::move(parts));
    if (!server.ok()) throw std::runtime_error(std::string(server.status().message()));
    server_ = *std::move(server);
    if (!Eventually([this] { return server_->ready(); })) throw std::runtime_error("the worker is not ready");
  }
  std::string address() const { return absl::StrCat("127.0.0.1:", server_->grpc_port()); }
  int port() const { return server_->grpc_port(); }
  WorkerServer& server() { return *server_; }
  EngineControl& engine() { return *control_; }

 private:
  std::shared_ptr<EngineControl> control_;
  std::unique_ptr<WorkerServer> server_;
};

class TestRouter {
 public:
  explicit TestRouter(const std::vector<std::string>& workers, const std::string& policy = "round-robin",
                      bool wait = true, Duration step_timeout = Duration::Seconds(60),
                      Duration heartbeat = Duration::Seconds(2)) {
    spdlog::set_level(spdlog::level::off);
    ServerConfig config;
    config.role = "router";
    config.step_timeout = step_timeout;
    config.listen = "127.0.0.1:0";
    config.metrics_listen = "";
    config.router = policy;
    config.worker_address = workers;
    config.heartbeat = heartbeat;
    auto server = Server::Start(config, PartsOf(""));
    if (!server.ok()) throw std::runtime_error(std::string(server.status().message()));
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->grpc_port()),
                                   grpc::InsecureChannelCredentials());
    stub_ = v1::Inference::NewStub(channel_);
    if (wait && !WaitFor(static_cast<int64_t>(workers.size())))
      throw std::runtime_error("workers are missing");
  }
  bool WaitFor(int64_t ranks) {
    return Eventually(
        [&] { return server_->front().load().workers == ranks && (ranks == 0) != server_->ready(); });
  }
  Answer Generate(uint32_t max_tokens,
                  const std::function<void(const v1::GenerateResponse&)>& each = nullptr) {
    grpc::ClientContext context;
    auto reader = stub_->Generate(&context, Harness::Request("a prompt of some length", max_tokens));
    Answer answer;
    v1::GenerateResponse message;
    while (reader->Read(&message)) {
      answer.Take(message);
      if (each) each(message);
    }
    answer.status = reader->Finish();
    return answer;
  }
  // All at once.
  std::vector<Answer> GenerateMany(int count, uint32_t max_tokens,
                                   const std::function<void(const v1::GenerateResponse&)>& each = nullptr) {
    std::vector<std::future<Answer>> calls;
    for (int i = 0; i < count; ++i) {
      calls.push_back(std::async(std::launch::async, [&, i] { return Generate(max_tokens + i % 7, each); }));
    }
    std::vector<Answer> answers;
    for (auto& call : calls) answers.push_back(call.get());
    return answers;
  }
  Server& server() { return *server_; }

 private:
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

// Every token, in its place, once.
void ExpectWhole(const Answer& answer, size_t tokens) {
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_THAT(answer.tokens, SizeIs(1));
  ASSERT_EQ(answer.tokens[0].size(), tokens);
  for (size_t i = 0; i < tokens; ++i) {
    ASSERT_EQ(static_cast<TokenId>(answer.tokens[0][i]), FakeToken(static_cast<int32_t>(i))) << i;
  }
  ASSERT_THAT(answer.finished, SizeIs(1));
  EXPECT_EQ(answer.finished[0].usage().completion_tokens(), tokens);
}

void ExpectAllWhole(const std::vector<Answer>& answers, uint32_t max_tokens) {
  for (size_t i = 0; i < answers.size(); ++i) ExpectWhole(answers[i], max_tokens + i % 7);
}

TEST(Processes, ThreeWorkersOfOneAndTwoRanksServeTogether) {
  TestWorker one, two(2);
  TestRouter router({one.address(), two.address()}, "round-robin", false);
  ASSERT_TRUE(router.WaitFor(3));
  std::set<uint32_t> used;
  const std::vector<Answer> answers = router.GenerateMany(30, 20);
  ExpectAllWhole(answers, 20);
  for (const Answer& answer : answers) {
    ASSERT_EQ(answer.finished.at(0).attempts_size(), 1);
    used.insert(answer.finished.at(0).attempts(0).worker());
    const v1::Timings& timings = answer.finished[0].timings();
    EXPECT_GE(timings.queue_ms(), 0);
    EXPECT_GE(timings.prefill_ms(), 0);
    EXPECT_NEAR(timings.queue_ms() + timings.prefill_ms(), timings.ttft_ms(), 1e-6);
  }
  EXPECT_THAT(used, SizeIs(3));
}

// The streams break without a word, as when a process is killed; what ran goes on elsewhere, and the worker
// that comes back at the same address gets work again.
TEST(Processes, AKilledWorkerLosesNoToken) {
  auto victim = std::make_unique<TestWorker>();
  TestWorker other;
  TestRouter router({victim->address(), other.address()});
  const int port = victim->port();
  for (int round = 0; round < 2; ++round) {
    victim->engine().step_us = other.engine().step_us = 2000;
    std::atomic<int> tokens{0};
    auto calls = std::async(std::launch::async, [&] {
      return router.GenerateMany(16, 60, [&](const v1::GenerateResponse& m) { tokens += m.has_delta(); });
    });
    ASSERT_TRUE(Eventually([&] { return tokens > 100 + 40 * round; }));
    victim.reset();
    const std::vector<Answer> answers = calls.get();
    ExpectAllWhole(answers, 60);
    int replayed = 0;
    for (const Answer& answer : answers) replayed += answer.finished.at(0).attempts_size() > 1;
    EXPECT_GE(replayed, 1);
    victim = std::make_unique<TestWorker>(1, "weights", port);
    ASSERT_TRUE(router.WaitFor(2));
  }
  std::set<uint32_t> used;
  for (const Answer& answer : router.GenerateMany(4, 5))
    used.insert(answer.finished.at(0).attempts(0).worker());
  EXPECT_THAT(used, SizeIs(2));
}

TEST(Processes, AllWorkersGoneAndBack) {
  auto worker = std::make_unique<TestWorker>();
  const int port = worker->port();
  TestRouter router({worker->address()});
  worker->engine().step_us = 2000;
  std::atomic<int> tokens{0};
  auto calls = std::async(std::launch::async, [&] {
    return router.GenerateMany(3, 60, [&](const v1::GenerateResponse& m) { tokens += m.has_delta(); });
  });
  ASSERT_TRUE(Eventually([&] { return tokens > 20; }));
  worker.reset();
  ASSERT_TRUE(router.WaitFor(0));
  const Answer refused = router.Generate(1);
  EXPECT_EQ(refused.status.error_code(), grpc::UNAVAILABLE);
  worker = std::make_unique<TestWorker>(1, "weights", port);
  ExpectAllWhole(calls.get(), 60);
}

TEST(Processes, ADrainingWorkerFinishesAndGetsNothingNew) {
  TestWorker leaves, stays;
  TestRouter router({leaves.address(), stays.address()});
  leaves.engine().step_us = stays.engine().step_us = 1000;
  std::atomic<int> tokens{0};
  auto calls = std::async(std::launch::async, [&] {
    return router.GenerateMany(8, 100, [&](const v1::GenerateResponse& m) { tokens += m.has_delta(); });
  });
  ASSERT_TRUE(Eventually([&] { return tokens > 40; }));
  auto drained = std::async(std::launch::async, [&] { return leaves.server().Drain(Duration::Seconds(30)); });
  ASSERT_TRUE(Eventually([&] { return !leaves.server().ready(); }));
  const std::vector<Answer> answers = calls.get();
  ExpectAllWhole(answers, 100);
  for (const Answer& answer : answers)
    EXPECT_EQ(answer.finished.at(0).attempts_size(), 1) << "nothing is moved";
  EXPECT_TRUE(drained.get());
  ASSERT_TRUE(router.WaitFor(1));
  ExpectAllWhole(router.GenerateMany(4, 5), 5);
}

// Its process lives and beats, its engine does not: the requests run elsewhere, and it comes back when it is
// well.
TEST(Processes, AHungWorkerIsGivenUpAndComesBack) {
  const Duration timeout = Duration::Milliseconds(300);
  TestWorker hung(1, "weights", 0, timeout), other(1, "weights", 0, timeout);
  TestRouter router({hung.address(), other.address()}, "round-robin", true, timeout);
  hung.engine().hold_at = hung.engine().num_steps + 5;
  const std::vector<Answer> answers = router.GenerateMany(8, 20);
  ExpectAllWhole(answers, 20);
  int moved = 0;
  for (const Answer& answer : answers) moved += answer.finished.at(0).attempts_size() > 1;
  EXPECT_GE(moved, 1);
  ASSERT_TRUE(router.WaitFor(1)) << "it is not taken back as long as its step hangs";
  hung.engine().Release();
  ASSERT_TRUE(router.WaitFor(2));
  std::set<uint32_t> used;
  for (const Answer& answer : router.GenerateMany(6, 5))
    used.insert(answer.finished.at(0).attempts(0).worker());
  EXPECT_THAT(used, SizeIs(2));
}

// A stream to a worker by hand, after the hellos.
struct RawStream {
  explicit RawStream(const std::string& address)
      : stub(v1::Worker::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))) {
    const bool open = Eventually([this] {  // the one before may not have ended yet
      context = std::make_unique<grpc::ClientContext>();
      stream = stub->Connect(context.get());
      v1::ToWorker message;
      message.mutable_router()->set_protocol_version(kWorkerProtocol);
      message.mutable_router()->set_config_digest("config");
      message.mutable_router()->set_tokenizer_digest("bytes");
      message.mutable_router()->set_heartbeat_ns(1'000'000'000);
      stream->Write(message);
      if (stream->Read(&hello)) return true;
      stream->Finish();
      return false;
    });
    if (!open) throw std::runtime_error("the worker takes no stream");
  }
  ~RawStream() {
    context->TryCancel();
    stream->Finish();
  }
  std::unique_ptr<v1::Worker::Stub> stub;
  std::unique_ptr<grpc::ClientContext> context;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ToWorker, v1::FromWorker>> stream;
  v1::FromWorker hello;
};

// A router that comes later learns what is cached, though nothing runs.
TEST(Processes, AWorkerTellsWhatItHasCached) {
  TestWorker worker;
  {
    TestRouter router({worker.address()}, "cache-aware");
    ExpectAllWhole(router.GenerateMany(1, 50), 50);
  }
  RawStream raw(worker.address());
  EXPECT_EQ(raw.hello.worker().ranks(0).hash_key_id(), HashKeyId(0));
  v1::ToWorker ask;
  ask.add_commands()->set_tell_prefixes(true);
  ASSERT_TRUE(raw.stream->Write(ask));
  v1::FromWorker answer;
  do {
    ASSERT_TRUE(raw.stream->Read(&answer));
  } while (answer.reports_size() == 0);
  const v1::WireState& state = answer.reports(0).state();
  EXPECT_TRUE(state.prefixes_anew());
  EXPECT_EQ(state.prefix_stored_size(), state.blocks_cached());
  EXPECT_GE(state.prefix_stored_size(), 4) << "24 tokens of a prompt, and 50 made";
  EXPECT_GE(state.prefix_event_sequence(), 2 * static_cast<uint64_t>(state.prefix_stored_size()))
      << "the first router was told as well";
}

TEST(Processes, AWorkerDropsWhatALostRouterLeaves) {
  TestWorker worker;
  worker.engine().step_us = 200;
  for (int round = 0; round < 10; ++round) {
    RawStream raw(worker.address());
    v1::ToWorker message;
    v1::FromWorker answer;
    for (uint64_t request = 1; request <= 200; ++request) {
      Submit submit = FullSubmit();
      submit.key = {RequestId{request}, 0, 0};
      submit.submission = request;
      submit.sampling = {};
      submit.stop = {.max_tokens = 5 + static_cast<int32_t>(request % 50), .min_tokens = 0, .stop_ids = {}};
      submit.deadline = Time::Never();
      ToWire(submit, nullptr, kNow, message.add_commands()->mutable_submit());
    }
    ASSERT_TRUE(raw.stream->Write(message));
    for (int events = 0; events < 100;) {
      ASSERT_TRUE(raw.stream->Read(&answer));
      for (const v1::WireReport& report : answer.reports()) events += report.events_size();
    }
  }  // samples end, and reports come, while the worker forgets
  ASSERT_TRUE(Eventually([&] { return worker.engine().num_released == worker.engine().num_admitted; }))
      << "slots are free again";
  TestRouter next({worker.address()});
  worker.engine().step_us = 0;
  ExpectAllWhole(next.GenerateMany(4, 50), 50);
}

// All ranks of a process go at once: no request is moved to another rank of the dead.
TEST(Processes, AKilledProcessOfManyRanksMovesARequestOnce) {
  auto victim = std::make_unique<TestWorker>(8);
  TestWorker other;
  TestRouter router({victim->address(), other.address()}, "fcfs", false);
  ASSERT_TRUE(router.WaitFor(9));
  victim->engine().step_us = other.engine().step_us = 1000;
  std::atomic<int> tokens{0};
  auto calls = std::async(std::launch::async, [&] {
    return router.GenerateMany(24, 80, [&](const v1::GenerateResponse& m) { tokens += m.has_delta(); });
  });
  ASSERT_TRUE(Eventually([&] { return tokens > 100; }));
  victim.reset();
  const std::vector<Answer> answers = calls.get();
  ExpectAllWhole(answers, 80);
  int moved = 0;
  for (const Answer& answer : answers) {
    EXPECT_LE(answer.finished.at(0).attempts_size(), 2);
    moved += answer.finished[0].attempts_size() > 1;
  }
  EXPECT_GE(moved, 1);
}

// The request has been submitted, and its first step takes its time: the drain waits for it.
TEST(Processes, ADrainWaitsForWhatHasJustBegun) {
  TestWorker worker;
  TestRouter router({worker.address()});
  worker.engine().hold_at = worker.engine().num_steps + 0;
  auto call = std::async(std::launch::async, [&] { return router.Generate(20); });
  ASSERT_TRUE(Eventually([&] {
    std::lock_guard lock(worker.engine().mutex);
    return worker.engine().held;
  }));
  auto drained = std::async(std::launch::async, [&] { return worker.server().Drain(Duration::Seconds(60)); });
  ASSERT_TRUE(Eventually([&] { return !worker.server().ready(); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(500));  // what a drain without patience would take
  worker.engine().Release();
  ExpectWhole(call.get(), 20);
  EXPECT_TRUE(drained.get());
}

TEST(Processes, CancelReachesTheEngine) {
  TestWorker worker;
  worker.engine().step_us = 1000;
  TestRouter router({worker.address()});
  v1::GenerateRequest request = Harness::Request("x", 900);
  request.mutable_sampling()->add_stop("klm");
  grpc::ClientContext context;
  auto stub = v1::Inference::NewStub(grpc::CreateChannel(
      absl::StrCat("127.0.0.1:", router.server().grpc_port()), grpc::InsecureChannelCredentials()));
  auto reader = stub->Generate(&context, request);
  Answer answer;
  v1::GenerateResponse message;
  while (reader->Read(&message)) answer.Take(message);
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(answer.text.at(0), "abcdefghij");
  ASSERT_TRUE(Eventually([&] { return worker.engine().num_released == worker.engine().num_admitted; }));
  EXPECT_LT(worker.engine().num_steps, 900) << "it did not run to its end";
}

TEST(Processes, RequestsLargerThanEveryWorkerAreRefusedByName) {
  TestWorker worker;
  TestRouter router({worker.address()});
  const Answer answer = router.Generate(1020);
  EXPECT_FALSE(answer.status.ok());
  EXPECT_EQ(answer.error().field(), "sampling.max_tokens") << answer.status.error_message();
}

TEST(Processes, AWorkerOfOtherWeightsStaysOut) {
  TestWorker one, other(1, "other weights");
  TestRouter router({one.address(), other.address()}, "round-robin", false);
  ASSERT_TRUE(Eventually([&] { return router.server().ready(); }));
  ExpectAllWhole(router.GenerateMany(4, 5), 5);
  EXPECT_EQ(router.server().front().load().workers, 1);
}

// The router's side of a handshake, by hand.
grpc::Status Greet(const std::string& address, const v1::ToWorker& first) {
  auto stub = v1::Worker::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  auto stream = stub->Connect(&context);
  stream->Write(first);
  v1::FromWorker answer;
  if (stream->Read(&answer)) context.TryCancel();
  return stream->Finish();
}

TEST(Processes, HandshakesThatDoNotFit) {
  TestWorker worker;
  v1::ToWorker hello;
  EXPECT_EQ(Greet(worker.address(), hello).error_code(), grpc::INVALID_ARGUMENT);
  v1::RouterHello* router = hello.mutable_router();
  router->set_protocol_version(kWorkerProtocol + 1);
  router->set_config_digest("config");
  router->set_tokenizer_digest("bytes");
  EXPECT_EQ(Greet(worker.address(), hello).error_code(), grpc::FAILED_PRECONDITION);
  router->set_protocol_version(kWorkerProtocol);
  EXPECT_EQ(Greet(worker.address(), hello).error_code(), grpc::CANCELLED) << "accepted, and cancelled by us";
  router->set_tokenizer_digest("words");
  EXPECT_THAT(Greet(worker.address(), hello).error_message(), HasSubstr("tokenizer"));
  router->set_tokenizer_digest("bytes");
  TestRouter first({worker.address()});
  const grpc::Status second = Greet(worker.address(), hello);
  EXPECT_EQ(second.error_code(), grpc::UNAVAILABLE);
  EXPECT_THAT(second.error_message(), HasSubstr("another router"));
}

TEST(Processes, AStreamThatNeverSaysHelloIsEnded) {
  TestWorker worker;
  auto stub = v1::Worker::NewStub(grpc::CreateChannel(worker.address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  auto stream = stub->Connect(&context);
  v1::FromWorker answer;
  EXPECT_FALSE(stream->Read(&answer)) << "ended by the worker, not by us";
  EXPECT_EQ(stream->Finish().error_code(), grpc::CANCELLED);
  TestRouter router({worker.address()});
  ExpectAllWhole(router.GenerateMany(2, 5), 5);
}

// A process that says it is a worker, and then whatever a test makes it say.
class Impostor final : public v1::Worker::Service {
 public:
  using Behaviour = std::function<void(grpc::ServerReaderWriter<v1::FromWorker, v1::ToWorker>*)>;
  explicit Impostor(Behaviour behaviour) : behaviour_(std::move(behaviour)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~Impostor() override { server_->Shutdown(std::chrono::system_clock::now()); }
  grpc::Status Connect(grpc::ServerContext*,
                       grpc::ServerReaderWriter<v1::FromWorker, v1::ToWorker>* stream) override {
    v1::ToWorker first;
    if (!stream->Read(&first)) return grpc::Status::OK;
    ++streams;
    v1::FromWorker hello;
    hello.mutable_worker()->set_protocol_version(kWorkerProtocol);
    hello.mutable_worker()->set_config_digest("config");
    hello.mutable_worker()->set_model_digest("weights");
    hello.mutable_worker()->set_tokenizer_digest("bytes");
    hello.mutable_worker()->set_vocab_size(kByteVocab);
    v1::RankHello* rank = hello.mutable_worker()->add_ranks();
    rank->set_incarnation(static_cast<uint64_t>(streams));
    rank->set_num_blocks(256), rank->set_block_tokens(16), rank->set_max_context(1024);
    rank->set_slots(16), rank->set_max_step_tokens(512);
    stream->Write(hello);
    behaviour_(stream);
    return grpc::Status::OK;
  }
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }
  std::atomic<int> streams{0};

 private:
  const Behaviour behaviour_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// It takes everything and never says a word: its silence ends the stream, and its requests run elsewhere.
TEST(Processes, ASilentWorkerIsGivenUp) {
  std::atomic<int> submits{0};
  Impostor silent([&](auto* stream) {
    v1::ToWorker message;
    while (stream->Read(&message)) {
      for (const v1::WireCommand& command : message.commands()) submits += command.has_submit();
    }
  });
  TestWorker honest;
  TestRouter router({silent.address(), honest.address()}, "round-robin", false, Duration::Seconds(60),
                    Duration::Milliseconds(50));
  ASSERT_TRUE(Eventually([&] { return router.server().ready(); }));
  while (submits == 0) ExpectAllWhole(router.GenerateMany(6, 10), 10);
  EXPECT_TRUE(Eventually([&] { return silent.streams >= 2; })) << "it is tried again";
}

TEST(Processes, AWorkerThatTalksNonsenseHarmsNobody) {
  constexpr int kLies = 5;
  std::atomic<int> turn{0};
  Impostor liar([&turn](auto* stream) {
    v1::ToWorker message;
    while (stream->Read(&message)) {
      if (message.commands_size() == 0 || !message.commands(0).has_submit()) continue;
      const v1::WireSubmit& submit = message.commands(0).submit();
      v1::FromWorker lie;
      v1::WireReport* report = lie.add_reports();
      v1::WireEvent* event = report->add_events();
      *event->mutable_key() = submit.key();
      switch (turn++ % kLies) {
        case 0:  // of a request that nobody knows, and of a rank that is not
          event->mutable_key()->set_request(1 << 30);
          event->set_index(0), event->set_token(1);
          *lie.add_reports() = *report;
          lie.mutable_reports(1)->set_rank(7);
          break;
        case 1:  // no such token
          event->set_index(0), event->set_token(1 << 20);
          break;
        case 2:  // of another attempt
          event->mutable_key()->set_attempt(99);
          event->set_index(0), event->set_token(1);
          break;
        case 3: {  // of a prompt that is not that long
          v1::WirePromptLogprobs* prompt = event->mutable_prompt_logprobs();
          prompt->set_begin(1);
          for (int i = 0; i < 5000; ++i) prompt->add_chosen(-1);
          break;
        }
        default:  // counts beyond all sense
          report->clear_events();
          report->mutable_state()->set_sequence_number(1);
          for (auto set : {&v1::WireState::set_blocks_total, &v1::WireState::set_blocks_free,
                           &v1::WireState::set_blocks_cached, &v1::WireState::set_num_running,
                           &v1::WireState::set_num_waiting, &v1::WireState::set_free_slots}) {
            (report->mutable_state()->*set)(~0u);
          }
      }
      stream->Write(lie);  // and falls silent
    }
  });
  TestWorker honest;
  TestRouter router({liar.address(), honest.address()}, "round-robin", false, Duration::Seconds(60),
                    Duration::Milliseconds(50));
  ASSERT_TRUE(Eventually([&] { return router.server().ready(); }));
  while (turn < kLies) ExpectAllWhole(router.GenerateMany(4, 10), 10);
}

TEST(Membership, AddressesAndNames) {
  EXPECT_THAT(std::string(NewMembership({"a:1", "b:2", "a:1"}, {}).status().message()),
              HasSubstr("'a:1' is given twice"));
  for (const char* bad : {"a", ":1", "a:", "a:0", "a:65536", "a:x"}) {
    EXPECT_FALSE(NewMembership({bad}, {}).ok()) << bad;
    EXPECT_FALSE(NewMembership({}, {bad}).ok()) << bad;
  }
  // A name that cannot be looked up takes nobody else away.
  EXPECT_THAT(NewMembership({"w:9"}, {"127.0.0.1:7", "name.invalid:7"}).value()->Resolve(),
              ::testing::ElementsAre("127.0.0.1:7", "w:9"));
}

}  // namespace
}  // namespace orrery::testing
