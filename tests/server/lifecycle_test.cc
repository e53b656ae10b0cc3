// Readiness, watchdog, drain, refusals, HTTP, metrics, journal.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <future>
#include <set>
#include <sstream>

#include "gmock/gmock.h"
#include "grpcpp/impl/codegen/config.h"
#include "gtest/gtest.h"
#include "scheduler/journal.h"
#include "spdlog/sinks/ostream_sink.h"
#include "tests/server/http_get.h"
#include "tests/server/server_harness.h"

namespace orrery::testing {
namespace {

using ::testing::HasSubstr;

TEST(Lifecycle, ReadyOnlyAfterWarmUpAndRefusesBefore) {
  Harness::Setup setup;
  setup.wait_until_ready = false;
  setup.hold_at_start = true;
  Harness harness(setup);
  const Answer early = harness.Generate(Harness::Request("x", 1));
  EXPECT_EQ(early.status.error_code(), grpc::UNAVAILABLE);
  EXPECT_EQ(early.error().reason(), "not_ready");
  EXPECT_FALSE(early.retry.empty());
  EXPECT_FALSE(harness.server().ready());
  harness.engine().Release();
  EXPECT_TRUE(Eventually([&] { return harness.server().ready(); }));
  EXPECT_TRUE(harness.Generate(Harness::Request("x", 1)).status.ok());
}

TEST(Lifecycle, FailedWarmUpIsToldAndNeverReady) {
  Harness::Setup setup;
  setup.wait_until_ready = false;
  setup.fail_at_start = true;
  Harness harness(setup);
  EXPECT_TRUE(Eventually([&] { return harness.engine_failed(); }));
  EXPECT_EQ(harness.Generate(Harness::Request("x", 1)).error().reason(), "not_ready");
}

TEST(Lifecycle, ALostEngineEndsItsRequestsWithAnErrorAndIsTold) {
  Harness harness;
  EXPECT_TRUE(harness.Generate(Harness::Request("x", 5)).status.ok());
  EXPECT_FALSE(harness.engine_failed());
  harness.engine().lost = true;
  for (int i = 0; i < 2; ++i) {
    const Answer broken = harness.Generate(Harness::Request("x", 5));
    EXPECT_EQ(broken.status.error_code(), grpc::INTERNAL);
    EXPECT_TRUE(Eventually([&] { return harness.engine_failed(); }));
  }
}

TEST(Lifecycle, WatchdogTurnsReadinessOffAndOnAgain) {
  Harness::Setup setup;
  setup.config.step_timeout = Duration::Milliseconds(50);
  setup.config.metrics_listen = "127.0.0.1:0";
  Harness harness(setup);
  harness.engine().Hold();
  auto call = std::async(std::launch::async, [&] { return harness.Generate(Harness::Request("x", 3)); });
  EXPECT_TRUE(Eventually([&] { return !harness.server().ready(); }));
  EXPECT_THAT(Get(harness.server().http_port(), "/ready"), HasSubstr("503"));
  EXPECT_THAT(Get(harness.server().http_port(), "/health"), HasSubstr("200 OK"));
  const std::string head = Http(harness.server().http_port(), "HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(head, ::testing::EndsWith("\r\n\r\n")) << "no body";
  harness.engine().Release();
  EXPECT_TRUE(call.get().status.ok());
  EXPECT_TRUE(Eventually([&] { return harness.server().ready(); }));
}

// A call of which the engine is held right after its first token.
class HeldCall {
 public:
  HeldCall(Harness& harness, uint32_t max_tokens) {
    answer_ = std::async(std::launch::async, [this, &harness, max_tokens] {
      bool held = false;
      const auto hold = [&](const v1::GenerateResponse& message, grpc::ClientContext&) {
        if (!message.has_delta() || std::exchange(held, true)) return;
        harness.engine().Hold();
        began_.set_value();
      };
      Answer answer = harness.Generate(Harness::Request("x", max_tokens), nullptr, hold);
      if (!held) began_.set_value();  // it failed: nobody is to wait for it
      return answer;
    });
    began_.get_future().wait();
  }
  Answer Get() { return answer_.get(); }

 private:
  std::promise<void> began_;
  std::future<Answer> answer_;
};

TEST(Lifecycle, DrainFinishesWhatRunsAndRefusesTheRest) {
  Harness harness;
  harness.engine().step_us = 1000;  // some of the 300 tokens are left when the first one is read
  HeldCall running(harness, 300);
  auto drained =
      std::async(std::launch::async, [&] { return harness.server().Drain(Duration::Seconds(60)); });
  ASSERT_TRUE(Eventually([&] { return harness.server().front().load().draining.load(); }));
  const Answer late = harness.Generate(Harness::Request("y", 1));
  EXPECT_EQ(late.status.error_code(), grpc::UNAVAILABLE);
  EXPECT_EQ(late.error().reason(), "draining");
  EXPECT_FALSE(late.retry.empty());
  EXPECT_TRUE(Eventually([&] { return !harness.server().ready(); }));
  harness.engine().Release();
  EXPECT_TRUE(drained.get());
  const Answer answer = running.Get();
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.tokens[0].size(), 300u);
}

TEST(Lifecycle, DrainTimeoutEndsWhatIsLeft) {
  Harness harness;
  harness.engine().step_us = 10'000;
  HeldCall running(harness, 4000);
  EXPECT_FALSE(harness.server().Drain(Duration::Milliseconds(20)));
  const Answer answer = running.Get();
  EXPECT_EQ(answer.status.error_code(), grpc::UNAVAILABLE);
  EXPECT_EQ(answer.error().reason(), "draining");
  harness.engine().Release();
}

TEST(Refusal, QueueFullCarriesReasonAndPushback) {
  Harness::Setup setup;
  setup.config.max_queue_tokens = 100;
  Harness harness(setup);
  harness.engine().Hold();
  std::vector<std::future<Answer>> calls;
  for (int i = 0; i < 8; ++i) {
    calls.push_back(std::async(std::launch::async,
                               [&] { return harness.Generate(Harness::Request(std::string(49, 'q'), 1)); }));
  }
  ASSERT_TRUE(Eventually([&] {
    return harness.Metric("orrery_rejections_total", {{"reason", "queue_full"}}) >= 1;
  }));
  harness.engine().Release();
  int refused = 0;
  for (auto& call : calls) {
    const Answer answer = call.get();
    if (answer.status.ok()) continue;
    ++refused;
    EXPECT_EQ(answer.status.error_code(), grpc::RESOURCE_EXHAUSTED);
    EXPECT_EQ(answer.error().reason(), "queue_full");
    EXPECT_FALSE(answer.error().limit().empty());
    EXPECT_FALSE(answer.retry.empty());
  }
  EXPECT_GE(refused, 1);
  EXPECT_TRUE(Eventually([&] {
    return harness.Metric("orrery_requests_total", {{"outcome", "rejected"}}) == refused &&
           harness.Metric("orrery_requests_total", {{"outcome", "length"}}) == 8 - refused;
  }));
  EXPECT_TRUE(Eventually([&] { return harness.IsIdle(); }));
}

// In a full house only the load may be asked for.
TEST(Refusal, OtherMethodsWaitAsWell) {
  Harness::Setup setup;
  setup.config.max_open_requests = 1;
  Harness harness(setup);
  const auto codes = [&] {
    grpc::ClientContext contexts[2];
    v1::TokenizeRequest text;
    v1::TokenizeResponse tokens;
    v1::DetokenizeResponse decoded;
    text.set_text("x");
    const grpc::Status ends[] = {harness.stub().Tokenize(&contexts[0], text, &tokens),
                                 harness.stub().Detokenize(&contexts[1], {}, &decoded)};
    std::set<std::string> reasons;
    for (size_t i = 0; i < 2; ++i) {
      reasons.insert(ends[i].ok() ? "ok" : ErrorInfoOf(ends[i]).value_or(v1::ErrorInfo()).reason());
      EXPECT_EQ(contexts[i].GetServerTrailingMetadata().count("grpc-retry-pushback-ms"), !ends[i].ok());
    }
    return reasons;
  };
  // One at a time: a call counts until gRPC is done with its answer.
  EXPECT_TRUE(Eventually([&] { return codes() == std::set<std::string>{"ok"}; }));
  EXPECT_TRUE(Eventually([&] { return harness.Load().open_streams() == 0; }));
  harness.engine().Hold();
  auto call = std::async(std::launch::async, [&] { return harness.Generate(Harness::Request("x", 3)); });
  EXPECT_TRUE(Eventually([&] { return harness.Load().open_streams() == 1; }));
  EXPECT_EQ(codes(), std::set<std::string>{"queue_full"});
  harness.engine().Release();
  EXPECT_TRUE(call.get().status.ok());
}

TEST(Refusal, WhatNeverFitsThePool) {
  Harness::Setup setup;
  setup.limits.num_blocks = 4;  // 64 tokens, with a context of 4096
  Harness harness(setup);
  const Answer answer = harness.Generate(Harness::Request("x", 1000));
  EXPECT_EQ(answer.status.error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_EQ(answer.error().reason(), "kv_too_small");
  EXPECT_TRUE(answer.retry.empty());  // no retry can help
  v1::GenerateRequest unbounded = Harness::Request("x", 1);
  unbounded.mutable_sampling()->clear_max_tokens();
  EXPECT_TRUE(harness.Generate(unbounded).status.ok());  // the default fits the pool
}

TEST(Refusal, WithoutAReasonIsStillCountedUnderOne) {
  ServerMetrics metrics{MetricsIdentity()};
  metrics.OnRefused(Outcome::kRejected, "");
  metrics.OnRefused(Outcome::kRejected, "queue_full");
  std::map<std::string, double> counts;
  for (const auto& family : metrics.registry()->Collect()) {
    if (family.name != "orrery_rejections_total") continue;
    for (const auto& metric : family.metric) {
      for (const auto& label : metric.label) {
        if (label.name == "reason") counts[label.value] = metric.counter.value;
      }
    }
  }
  EXPECT_EQ(counts.count(""), 0u);
  EXPECT_EQ(counts["other"], 1);
  EXPECT_EQ(counts["queue_full"], 1);
}

// The lines of the log while a test runs, at level info.
class LogLines {
 public:
  LogLines() : before_(spdlog::default_logger()) {
    auto sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(stream_);
    spdlog::set_default_logger(std::make_shared<spdlog::logger>("test", std::move(sink)));
  }
  ~LogLines() { spdlog::set_default_logger(before_); }
  // REQUIRES: nobody logs any more.
  std::string text() const { return stream_.str(); }

 private:
  std::ostringstream stream_;
  std::shared_ptr<spdlog::logger> before_;
};

TEST(Refusal, IsALineInTheLogWithoutThePromptAndNotAFlood) {
  LogLines lines;
  {
    Harness harness;
    spdlog::set_level(spdlog::level::info);
    v1::GenerateRequest request = Harness::Request("my secret", 5000);  // more than the context
    request.set_request_id("mine");
    EXPECT_EQ(harness.Generate(request).error().field(), "sampling.max_tokens");
    request.mutable_sampling()->set_max_tokens(5);
    request.set_request_id("two\nlines");
    EXPECT_EQ(harness.Generate(request).error().field(), "request_id");
    request.set_request_id("");
    request.mutable_sampling()->set_max_tokens(5000);
    for (int i = 0; i < 300; ++i) EXPECT_FALSE(harness.Generate(request).status.ok());
  }
  const std::string log = lines.text();
  EXPECT_THAT(log, HasSubstr("request=mine refused reason=invalid_argument field=sampling.max_tokens"));
  EXPECT_THAT(log, HasSubstr("request=two\\nlines refused reason=invalid_argument field=request_id"));
  EXPECT_THAT(log, ::testing::Not(HasSubstr("secret")));
  int64_t written = 0;
  for (size_t at = 0; (at = log.find("refused reason", at)) != std::string::npos; ++at) ++written;
  EXPECT_LT(written, 302) << "three hundred in one second are not three hundred lines";
}

// The router's own no is one as well.
TEST(Refusal, OfTheRouterIsALineToo) {
  LogLines lines;
  {
    Harness::Setup setup;
    setup.limits.num_blocks = 4;
    Harness harness(setup);
    spdlog::set_level(spdlog::level::info);
    v1::GenerateRequest request = Harness::Request("x", 1000);
    request.set_request_id("large");
    EXPECT_EQ(harness.Generate(request).error().reason(), "kv_too_small");
  }
  EXPECT_THAT(lines.text(), HasSubstr("request=large refused reason=kv_too_small field="));
}

TEST(HttpEndpoint, ServesThreeGetsAndNothingElse) {
  Harness::Setup setup;
  setup.config.metrics_listen = "127.0.0.1:0";
  setup.config.metrics_compat = "vllm";
  Harness harness(setup);
  ASSERT_TRUE(harness.Generate(Harness::Request("hello", 10)).status.ok());
  const int port = harness.server().http_port();
  EXPECT_THAT(Get(port, "/ready"), HasSubstr("200 OK"));
  EXPECT_THAT(Get(port, "/nothing"), HasSubstr("404"));
  EXPECT_THAT(Http(port, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"), HasSubstr("405"));
  EXPECT_THAT(Http(port, "GET /" + std::string(100'000, 'x') + " HTTP/1.1\r\n\r\n"),
              ::testing::Not(HasSubstr("200 OK")));
  const std::string metrics = Get(port, "/metrics");
  for (const char* name : {"orrery_requests_waiting{",
                           "orrery_requests_running{",
                           "orrery_kv_cache_used_ratio{",
                           "orrery_kv_cache_blocks{",
                           "orrery_queue_tokens{",
                           "orrery_prompt_tokens_total{",
                           "orrery_generated_tokens_total{",
                           "orrery_prefix_cache_hit_tokens_total{",
                           "orrery_requests_total{",
                           "orrery_rejections_total{",
                           "orrery_preemptions_total{",
                           "orrery_time_to_first_token_seconds_bucket{",
                           "orrery_time_per_output_token_seconds_bucket{",
                           "orrery_inter_token_latency_seconds_bucket{",
                           "orrery_request_latency_seconds_bucket{",
                           "orrery_queue_time_seconds_bucket{",
                           "orrery_prefill_time_seconds_bucket{",
                           "orrery_decode_time_seconds_bucket{",
                           "orrery_step_seconds_bucket{",
                           "orrery_step_tokens_bucket{",
                           "orrery_step_sequences_bucket{",
                           "orrery_host_step_seconds_bucket{",
                           "orrery_policy_decision_seconds_bucket{",
                           "orrery_policy_objective{",
                           "orrery_policy_fallbacks_total{",
                           "orrery_build_info{",
                           "orrery_cache_config_info{",
                           "vllm:num_requests_waiting{",
                           "vllm:num_requests_running{",
                           "vllm:kv_cache_usage_perc{",
                           "vllm:cache_config_info{"}) {
    EXPECT_THAT(metrics, HasSubstr(name));
  }
}

TEST(Metrics, CountersEqualWhatTheClientsSaw) {
  Harness harness;
  int64_t prompt = 0, output = 0;
  for (int i = 0; i < 50; ++i) {
    const Answer answer =
        harness.Generate(Harness::Request(std::string(static_cast<size_t>(i + 1), 'm'), 1 + i % 7));
    ASSERT_TRUE(answer.status.ok());
    prompt += answer.prompt_tokens;
    output += static_cast<int64_t>(answer.tokens[0].size());
  }
  EXPECT_TRUE(Eventually([&] {
    return harness.Metric("orrery_requests_total", {{"outcome", "length"}}) == 50;
  }));
  EXPECT_EQ(harness.Metric("orrery_prompt_tokens_total"), prompt);
  EXPECT_EQ(harness.Metric("orrery_generated_tokens_total"), output);
  EXPECT_EQ(harness.Metric("orrery_time_to_first_token_seconds"), 50);
  EXPECT_EQ(harness.Metric("orrery_request_latency_seconds"), 50);
  EXPECT_EQ(harness.Metric("orrery_inter_token_latency_seconds"), static_cast<double>(output - 50));
}

// Placed in turn, each worker with metrics of its own; the load is that of all.
TEST(Workers, SeveralInOneProcessShareTheRequests) {
  Harness::Setup setup;
  setup.config.workers = 3;
  setup.config.router = "round-robin";
  Harness harness(setup);
  EXPECT_EQ(harness.Load().blocks_total(), 3u * 1024);
  std::map<uint32_t, int> by_worker;
  for (int i = 0; i < 30; ++i) {
    const Answer answer = harness.Generate(Harness::Request("abc", 1 + i % 5));
    ASSERT_TRUE(answer.status.ok());
    EXPECT_EQ(answer.tokens[0].size(), static_cast<size_t>(1 + i % 5));
    ++by_worker[answer.finished.at(0).attempts(0).worker()];
  }
  EXPECT_EQ(by_worker, (std::map<uint32_t, int>{{0, 10}, {1, 10}, {2, 10}}));
  for (const char* worker : {"0", "1", "2"}) {
    EXPECT_GT(harness.Metric("orrery_step_sequences", {{"worker", worker}}), 10);
    EXPECT_TRUE(Eventually([&] {
      return harness.Metric("orrery_requests_running", {{"worker", worker}}) == 0;
    }));
  }
  EXPECT_TRUE(harness.server().Drain(Duration::Seconds(5)));
  EXPECT_TRUE(harness.server().StopWorkers(Duration::Seconds(5)));
}

// Ready means that every engine has gone through its warm-up.
TEST(Workers, OneThatHangsAtTheStartKeepsTheServerFromBeingReady) {
  Harness::Setup setup;
  setup.config.workers = 2;
  setup.hold_at_start = true;
  setup.wait_until_ready = false;
  Harness harness(setup);
  std::this_thread::sleep_for(std::chrono::milliseconds(120));
  EXPECT_FALSE(harness.server().ready());
  harness.engine().Release();
  EXPECT_TRUE(Eventually([&] { return harness.server().ready(); }));
}

TEST(Journal, ALiveRunReplaysWithEqualDigests) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("orrery_journal_" + std::to_string(getpid()))).string();
  {
    Harness::Setup setup;
    setup.config.record = path;
    setup.limits.num_blocks = 96;  // small enough for preemptions
    setup.limits.max_context = 1024;
    Harness harness(setup);
    std::vector<std::thread> clients;
    for (int c = 0; c < 12; ++c) {
      clients.emplace_back([&, c] {
        for (int i = 0; i < 8; ++i) {
          const auto text =
              std::string(static_cast<size_t>(5 + (c * 31 + i * 17) % 120), static_cast<char>('a' + c % 3));
          harness.Generate(Harness::Request(text, static_cast<uint32_t>(20 + (c * 13 + i * 29) % 200)),
                           nullptr, [&](const v1::GenerateResponse& message, grpc::ClientContext& context) {
                             if (c == 5 && message.has_delta()) context.TryCancel();
                           });
        }
      });
    }
    for (std::thread& client : clients) client.join();
  }
  std::ifstream file(path, std::ios::binary);
  std::string journal((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::filesystem::remove(path);
  const auto replayed = Replay(journal);
  ASSERT_TRUE(replayed.ok()) << replayed.status();
  EXPECT_EQ(replayed->difference, "");
  EXPECT_FALSE(replayed->summary.truncated);
  EXPECT_GE(replayed->summary.arrivals, 12u * 8u);
  EXPECT_GT(replayed->summary.steps, 100u);
  ASSERT_GT(journal.size(), 1000u);
  journal[journal.size() / 2] ^= 1;
  const auto damaged = Replay(journal);
  EXPECT_TRUE(!damaged.ok() || !damaged->difference.empty());
}

TEST(Groups, RanksStepTogetherAndSayWhatTheyWaited) {
  Harness::Setup setup;
  setup.config.workers = 4;
  setup.config.dp = 2;
  setup.config.router = "bf-io";
  setup.config.max_num_seqs = 2;
  Harness harness(setup);
  harness.engine().step_us = 300;
  std::vector<std::future<Answer>> calls;
  for (int i = 0; i < 24; ++i) {
    calls.push_back(std::async(std::launch::async, [&harness, i] {
      return harness.Generate(Harness::Request("x", static_cast<uint32_t>(5 + 7 * (i % 4))));
    }));
  }
  std::set<uint32_t> workers;
  for (int i = 0; i < 24; ++i) {
    const Answer answer = calls[static_cast<size_t>(i)].get();
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    ASSERT_EQ(answer.tokens.at(0).size(), static_cast<size_t>(5 + 7 * (i % 4)));
    workers.insert(answer.finished.at(0).attempts(0).worker());
  }
  EXPECT_EQ(workers.size(), 4u);
  for (const char* group : {"0", "1"}) {
    const double idle = harness.Metric("orrery_dp_barrier_idle_seconds_total", {{"group", group}});
    const double stepping = harness.Metric("orrery_dp_step_seconds_total", {{"group", group}});
    EXPECT_GT(idle, 0);
    EXPECT_LE(idle, stepping) << "the other of two ranks waits at most the whole step";
    EXPECT_GE(harness.Metric("orrery_dp_imbalance_tokens", {{"group", group}}), 0);
  }
  EXPECT_TRUE(Eventually([&] { return harness.IsIdle(); }));
}

TEST(Start, BadOptionsAreOneLine) {
  const auto start = [](ServerConfig config) {
    ServerParts parts;
    EngineLimits limits;
    limits.num_blocks = 16, limits.max_num_seqs = 4, limits.max_step_tokens = 64, limits.max_context = 128;
    limits.vocab_size = kByteVocab;
    parts.engine.executors.push_back(std::make_unique<FakeEngine>(limits, std::make_shared<EngineControl>()));
    parts.codec = std::make_unique<ByteCodec>();
    return Server::Start(config, std::move(parts)).status();
  };
  ServerConfig config;
  config.listen = "127.0.0.1:0";
  config.metrics_listen = "";
  config.scheduler = "fcsf";
  EXPECT_THAT(std::string(start(config).message()), HasSubstr("fcfs"));
  config.scheduler = "fcfs";
  config.router = "nonsense";
  EXPECT_EQ(start(config).code(), absl::StatusCode::kInvalidArgument);
  config.router = "jsq-tokens";
  config.listen = "256.0.0.1:1";
  EXPECT_THAT(std::string(start(config).message()), HasSubstr("--listen"));
  config.listen = "127.0.0.1:0";
  config.record = "/nonexistent/folder/journal";
  EXPECT_THAT(std::string(start(config).message()), HasSubstr("--record"));
  config.workers = 2;
  EXPECT_THAT(std::string(start(config).message()), HasSubstr("--workers is 2"));
}

// Two requests in the queue of a held engine: each one brings the load that its own placement made.
TEST(Metrics, DecisionsOfTheRouterAreTimedAndGoWithTheirRequest) {
  Harness harness;
  harness.engine().Hold();
  std::vector<std::future<Answer>> calls;
  for (uint32_t i = 0; i < 2; ++i) {
    calls.push_back(
        std::async(std::launch::async, [&] { return harness.Generate(Harness::Request("12345", 2)); }));
    ASSERT_TRUE(Eventually([&] {
      return harness.Metric("orrery_policy_decision_seconds",
                            {{"kind", "route"}, {"policy", "jsq-tokens"}}) == i + 1;
    }));
  }
  EXPECT_GE(harness.Metric("orrery_policy_objective", {{"kind", "route"}}), 12);
  harness.engine().Release();
  std::vector<double> values;
  for (auto& call : calls) {
    const Answer answer = call.get();
    for (const auto& decision : answer.finished.at(0).decisions()) {
      if (decision.kind() == "route") values.push_back(decision.value());
    }
  }
  EXPECT_EQ(values, (std::vector<double>{6, 12}))
      << "tokens of the worker with the request: BOS and five bytes";
}

TEST(Metrics, AttainmentOfObjectivesByClass) {
  Harness harness;
  const auto ask = [&](const std::string& slo_class, double ttft_ms) {
    v1::GenerateRequest request = Harness::Request("x", 3);
    request.mutable_slo()->set_class_(slo_class);
    if (ttft_ms > 0) request.mutable_slo()->set_ttft_ms(ttft_ms);
    EXPECT_TRUE(harness.Generate(request).status.ok());
  };
  ask("chat", 1e9);
  ask("chat", 1e-3);  // a microsecond
  ask("chat", 1e9);
  ask("chat", 0);  // no objective: not counted
  ask("", 1e9);
  const auto ratio = [&](const std::string& slo_class) {
    return harness.Metric("orrery_slo_attainment_ratio", {{"class", slo_class}});
  };
  EXPECT_TRUE(Eventually([&] { return ratio("chat") == 2.0 / 3 && ratio("default") == 1; })) << ratio("chat");
}

TEST(Metrics, ClassesOfClientsAreBounded) {
  prometheus::Registry registry;
  SloAttainment attainment(&registry, {});
  for (int i = 0; i < 1000; ++i) attainment.OnEnd("class" + std::to_string(i), i % 2 == 0);
  attainment.OnEnd("class3", true);
  std::map<std::string, double> ratios;
  for (const auto& family : registry.Collect()) {
    for (const auto& metric : family.metric) ratios[metric.label.at(0).value] = metric.gauge.value;
  }
  EXPECT_EQ(ratios.size(), SloAttainment::kMostClasses + 1);
  EXPECT_EQ(ratios["other"], 0.5);
  EXPECT_EQ(ratios["class3"], 0.5);
  EXPECT_EQ(ratios["class63"], 0);
}

}  // namespace
}  // namespace orrery::testing
