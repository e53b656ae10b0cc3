// `orrery bench` from its flags to its files, over gRPC, against a server without a model.
#include "server/bench/bench_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "server/bench/grpc_transport.h"
#include "server/bench/run_bench.h"
#include "server/traces/trace_reader.h"
#include "tests/server/bench/fake_inference_server.h"
#include "tests/server/traces/temp_file.h"

namespace orrery::bench {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

struct CommandResult {
  int code = -1;
  std::string out;
  nlohmann::json json;  // of `out`, when it is JSON
};

// Runs `orrery bench FLAGS`; the code is that of a usage error when the flags do not parse.
CommandResult Bench(std::vector<std::string> flags) {
  CLI::App app("orrery");
  BenchOptions options;
  RegisterBench(app, &options);
  flags.insert(flags.begin(), "bench");
  std::reverse(flags.begin(), flags.end());  // as CLI11 wants a vector
  try {
    app.parse(flags);
  } catch (const CLI::ParseError&) {
    return {.code = 2, .out = "", .json = {}};
  }
  CommandResult result;
  ::testing::internal::CaptureStdout();
  result.code = RunBench(options);
  result.out = ::testing::internal::GetCapturedStdout();
  result.json = nlohmann::json::parse(result.out, nullptr, false);
  return result;
}

TEST(BenchCommand, OpenLoopOverGrpc) {
  FakeInferenceServer server;
  const auto result = Bench({"--target", server.target(), "--dataset", "random", "--input-len", "40",
                             "--output-len", "10", "--num-requests", "50", "--rate", "2000", "--json",
                             "--slo", "e2e=60000", "--temperature", "0.5"});
  EXPECT_EQ(result.code, 0);
  ASSERT_TRUE(result.json.is_object()) << result.out;
  EXPECT_EQ(result.json["completed"], 50);
  EXPECT_EQ(result.json["failed"], 0);
  EXPECT_EQ(result.json["total_input_tokens"], 2000);
  EXPECT_EQ(result.json["total_output_tokens"], 500);
  EXPECT_EQ(result.json["slo_attainment"], 1.0);
  EXPECT_FALSE(result.json["mean_tpot_ms"].is_null());
  std::set<std::vector<uint32_t>> prompts;
  for (const auto& request : server.requests()) {
    ASSERT_EQ(request.token_ids().ids_size(), 40);
    for (const uint32_t id : request.token_ids().ids()) {
      EXPECT_GT(id, 0u);   // special
      EXPECT_LT(id, 99u);  // the end id
    }
    prompts.emplace(request.token_ids().ids().begin(), request.token_ids().ids().end());
    EXPECT_EQ(request.sampling().max_tokens(), 10u);
    EXPECT_TRUE(request.sampling().ignore_eos());
    EXPECT_FLOAT_EQ(request.sampling().temperature(), 0.5f);
  }
  EXPECT_EQ(prompts.size(), 50u);
}

TEST(BenchCommand, ManyStreamsAtOnce) {
  FakeInferenceServer server;
  const auto result = Bench({"--target", server.target(), "--dataset", "random", "--input-len", "4",
                             "--output-len", "7", "--num-requests", "1000", "--rate", "inf", "--json"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.json["completed"], 1000);
  EXPECT_EQ(result.json["total_output_tokens"], 7000);
}

TEST(BenchCommand, QuestionsGoAsOneUserMessage) {
  FakeInferenceServer server;
  TempFile questions("{\"turns\": [\"Hello?\", \"Why?\"]}\n", ".jsonl");
  const auto result = Bench({"--target", server.target(), "--dataset", "prompts", "--path", questions.path(),
                             "--concurrency", "1", "--output-len", "5"});
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.out, HasSubstr("TTFT"));
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[1].chat().messages_size(), 1);
  EXPECT_EQ(requests[1].chat().messages(0).role(), "user");
  EXPECT_EQ(requests[1].chat().messages(0).content(), "Why?");
  EXPECT_FALSE(requests[1].sampling().ignore_eos());
}

TEST(BenchCommand, ShareGptRepliesAreCountedByTheServer) {
  FakeInferenceServer server;
  TempFile file(R"([{"conversations": [{"value": "question"}, {"value": "four"}]}])", ".json");
  const auto result = Bench({"--target", server.target(), "--dataset", "sharegpt", "--path", file.path(),
                             "--concurrency", "1", "--json"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.json["total_output_tokens"], 4);  // the fake server's tokens are bytes
}

TEST(BenchCommand, ClassesAndOutcomes) {
  FakeInferenceServer server;
  TempFile classes(R"(
- {name: good, share: 1}
- {name: refused, share: 1, tenant: refuse, slo: ttft=100}
- {name: invalid, share: 1, tenant: invalid}
- {name: truncated, share: 1, tenant: truncate}
- {name: error, share: 1, tenant: error}
- {name: cut, share: 1, tenant: cut}
- {name: exhausted, share: 1, tenant: exhausted}
- {name: impatient, share: 1, tenant: hang, cancel_probability: 1, dataset: {name: random, output_len: 1}}
)");
  const auto result =
      Bench({"--target", server.target(), "--dataset", "random", "--input-len", "4", "--output-len", "6",
             "--num-requests", "160", "--rate", "inf", "--class", classes.path(), "--json"});
  EXPECT_EQ(result.code, 6);
  const auto& per_class = result.json["per_class"];
  ASSERT_EQ(per_class.size(), 8u);
  for (const auto& [name, block] : per_class.items()) {
    const char* counted = name == "good"        ? "completed"
                          : name == "refused"   ? "rejected"
                          : name == "impatient" ? "cancelled"
                                                : "failed";
    EXPECT_GT(block[counted], 0) << name;
    for (const char* other : {"completed", "rejected", "cancelled", "failed", "unfinished"}) {
      if (std::string(other) != counted) {
        EXPECT_EQ(block[other], 0) << name << " " << other;
      }
    }
  }
  EXPECT_EQ(per_class["refused"]["errors"]["queue_full"], per_class["refused"]["rejected"]);
  EXPECT_EQ(per_class["invalid"]["errors"]["invalid_argument"], per_class["invalid"]["failed"]);
  EXPECT_EQ(per_class["truncated"]["errors"]["truncated"], per_class["truncated"]["failed"]);
  EXPECT_EQ(per_class["cut"]["errors"]["draining"], per_class["cut"]["failed"]);
  EXPECT_EQ(per_class["error"]["errors"]["error"], per_class["error"]["failed"]);
  EXPECT_EQ(per_class["exhausted"]["errors"]["resource_exhausted"], per_class["exhausted"]["failed"]);
  // The server hears of a cancel a little after the client is done with it.
  while (server.cancelled() < per_class["impatient"]["cancelled"].get<int64_t>()) std::this_thread::yield();
  for (const auto& request : server.requests()) {
    if (request.tenant() == "refuse") {
      EXPECT_EQ(request.slo().ttft_ms(), 100);
    }
  }
}

TEST(BenchCommand, RefusalsAloneAreSuccess) {
  FakeInferenceServer server;
  TempFile classes("- {name: refused, tenant: refuse}\n");
  const auto result = Bench({"--target", server.target(), "--dataset", "random", "--num-requests", "5",
                             "--rate", "inf", "--class", classes.path(), "--json"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.json["rejected"], 5);
  EXPECT_TRUE(result.json["mean_ttft_ms"].is_null());
}

TEST(BenchCommand, SavedRunIsATraceOfItself) {
  FakeInferenceServer server;
  TempFile trace("num_prefill_tokens,num_decode_tokens,arrived_at\n5,6,10\n7,8,10.02\n9,3,10.03\n");
  TempFile save, html;
  const auto result = Bench({"--target", server.target(), "--dataset", "lengths", "--path", trace.path(),
                             "--use-trace-times", "--save", save.path(), "--html", html.path(), "--json"});
  ASSERT_EQ(result.code, 0);
  auto reader = OpenBenchTrace(save.path());
  ASSERT_TRUE(reader.ok()) << reader.status();
  TraceRow row;
  const std::vector<std::array<double, 3>> expected = {{0, 5, 6}, {0.02, 7, 8}, {0.03, 9, 3}};
  for (const auto& [arrival, prompt, output] : expected) {
    ASSERT_TRUE(*(*reader)->Next(&row));
    EXPECT_NEAR(*row.arrival_s, arrival, 1e-8);
    EXPECT_EQ(row.prompt_tokens, prompt);
    EXPECT_EQ(row.output_tokens, output);
  }
  const auto saved = nlohmann::json::parse(save.Read());
  EXPECT_EQ(saved["environment"]["options"]["dataset"], "lengths");
  EXPECT_EQ(saved["environment"]["server"]["model"], "fake");
  EXPECT_EQ(saved["mean_ttft_ms"], result.json["mean_ttft_ms"]);
  EXPECT_THAT(html.Read(), StartsWith("<!doctype html>"));
}

TEST(BenchCommand, UsageErrorsComeBeforeTheServer) {
  TempFile bad("num_prefill_tokens,num_decode_tokens\n5,0\n");
  TempFile good("num_prefill_tokens,num_decode_tokens\n5,1\n");
  const std::vector<std::vector<std::string>> cases = {
      {"--dataset", "random"},
      {"--dataset", "alpaca", "--rate", "1"},
      {"--rate", "1"},
      {"--dataset", "random", "--rate", "0"},
      {"--dataset", "random", "--rate", "x"},
      {"--dataset", "random", "--rate", "1", "--concurrency", "2"},
      {"--dataset", "random", "--concurrency", "0"},
      {"--dataset", "random", "--concurrency", "2", "--arrival", "gamma"},
      {"--dataset", "random", "--rate", "1", "--arrival", "weibull"},
      {"--dataset", "random", "--rate", "1", "--arrival", "poisson", "--burstiness", "2"},
      {"--dataset", "random", "--rate", "1", "--slo", "ttft"},
      {"--dataset", "random", "--rate", "1", "--api", "http"},
      {"--dataset", "random", "--rate", "1", "--temperature", "-1"},
      {"--dataset", "random", "--rate", "1", "--max-in-flight", "-1"},
      {"--dataset", "random", "--rate", "1", "--num-requests", "0"},
      {"--dataset", "random", "--rate", "1", "--class", "/nonexistent.yaml"},
      {"--dataset", "random", "--rate", "1", "--save", "/nonexistent/x.json"},
      {"--dataset", "lengths", "--rate", "1"},
      {"--dataset", "lengths", "--rate", "1", "--path", "/nonexistent.csv"},
      {"--dataset", "lengths", "--rate", "1", "--path", bad.path()},
      {"--dataset", "lengths", "--use-trace-times", "--path", good.path()},
      {"--no-such-flag"}};
  for (std::vector<std::string> flags : cases) {
    flags.insert(flags.end(), {"--target", "127.0.0.1:1", "--json"});
    const auto result = Bench(flags);
    EXPECT_EQ(result.code, 2) << ::testing::PrintToString(flags);
    if (!result.out.empty()) {
      ASSERT_TRUE(result.json.contains("error")) << result.out;
      EXPECT_FALSE(result.json["error"]["message"].get<std::string>().empty());
    }
  }
  const auto malformed = Bench({"--dataset", "lengths", "--rate", "1", "--path", bad.path(), "--json"});
  EXPECT_EQ(malformed.json["error"]["field"], bad.path() + ":2");
}

TEST(BenchCommand, NoServerIsFive) {
  const auto result = Bench({"--target", "127.0.0.1:1", "--dataset", "random", "--rate", "1",
                             "--num-requests", "1", "--ready-timeout", "0.2", "--json"});
  EXPECT_EQ(result.code, 5);
  EXPECT_EQ(result.json["error"]["code"], "UNAVAILABLE");
}

// The server has the request and never ends it.
TEST(BenchCommand, ATimeoutIsAFailureOfThatName) {
  FakeInferenceServer server;
  TempFile classes("- {name: stuck, tenant: hang}\n");
  const auto result =
      Bench({"--target", server.target(), "--dataset", "random", "--input-len", "4", "--num-requests", "5",
             "--rate", "inf", "--class", classes.path(), "--timeout", "0.2", "--json"});
  EXPECT_EQ(result.code, 6);
  EXPECT_EQ(result.json["failed"], 5);
  EXPECT_EQ(result.json["errors"]["timeout"], 5);
  EXPECT_EQ(
      Bench({"--target", server.target(), "--dataset", "random", "--rate", "1", "--timeout", "-1"}).code, 2);
}

TEST(BenchCommand, InterruptGivesWhatThereIs) {
  FakeInferenceServer server;
  TempFile classes("- {name: good}\n- {name: stuck, tenant: hang}\n");
  std::thread interrupter([&] {
    // Once the stuck requests are open nothing else can end the run.
    while (server.requests().size() < 40) std::this_thread::yield();
    kill(getpid(), SIGINT);
  });
  const auto result =
      Bench({"--target", server.target(), "--dataset", "random", "--input-len", "4", "--output-len", "3",
             "--num-requests", "40", "--rate", "inf", "--class", classes.path(), "--json"});
  interrupter.join();
  EXPECT_EQ(result.code, 0);
  EXPECT_GT(result.json["unfinished"], 0);
  EXPECT_EQ(result.json["failed"], 0);
  EXPECT_EQ(result.json["completed"].get<int>() + result.json["unfinished"].get<int>(), 40);
}

}  // namespace
}  // namespace orrery::bench
