// `orrery simulate` as a program: a live run recorded and replayed, equal bytes for equal inputs, and one
// clear line for input that is wrong.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/process.h"
#include "tests/places.h"

namespace orrery::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

// A file that goes away with the test.
class Scratch {
 public:
  explicit Scratch(const std::string& name, const std::string& text = "")
      : path_((fs::temp_directory_path() / ("orrery_" + std::to_string(getpid()) + "_" + name)).string()) {
    std::ofstream(path_, std::ios::binary) << text;
  }
  ~Scratch() { fs::remove(path_); }
  const std::string& path() const { return path_; }
  std::string Read() const {
    std::stringstream text;
    text << std::ifstream(path_, std::ios::binary).rdbuf();
    return text.str();
  }

 private:
  std::string path_;
};

std::string Lengths(int rows) {
  std::string text = "num_prefill_tokens,num_decode_tokens\n";
  for (int i = 0; i < rows; ++i)
    text += std::to_string(1 + i * 37 % 500) + "," + std::to_string(1 + i * 53 % 90) + "\n";
  return text;
}

TEST(SimulateProgram, ALiveRunIsReplayedWithoutADifferingDecision) {
  const Scratch journal("journal");
  {
    Process daemon(BinaryPath("orreryd"),
                   {"--model", DemoModel().string(), "--kv-cache-tokens", "512", "--max-num-seqs", "6",
                    "--max-step-tokens", "48", "--record", journal.path(), "--listen", "127.0.0.1:0",
                    "--metrics-listen", "127.0.0.1:0"},
                   true);
    ASSERT_TRUE(daemon.ReadUntil("metrics port ") && daemon.ReadUntil("\n")) << daemon.seen();
    const std::string& log = daemon.seen();
    const std::string target =
        "127.0.0.1:" + std::to_string(std::atoi(log.c_str() + log.find("grpc port ") + 10));
    // More than the KV cache holds at once, so that sequences wait and are preempted.
    const auto load =
        RunProgram("orrery", {"bench", "--target", target, "--dataset", "random", "--input-len", "60",
                              "--output-len", "70", "--num-requests", "24", "--rate", "inf", "--json"});
    ASSERT_EQ(load.exit_code, 0) << load.output;
    daemon.Signal(SIGTERM);
    ASSERT_EQ(daemon.Finish(), 0);
  }
  const auto replay = RunProgram("orrery", {"simulate", "--replay", journal.path(), "--json"});
  ASSERT_EQ(replay.exit_code, 0) << replay.output;
  const json result = json::parse(replay.output);
  EXPECT_EQ(result["differing_decisions"], 0);
  EXPECT_EQ(result["arrivals"], 24);
  EXPECT_EQ(result["warm_ups"], 1);
  EXPECT_GT(result["plans"].get<int>(), 100);
  EXPECT_FALSE(result["truncated"].get<bool>());

  std::string bytes = journal.Read();
  bytes[bytes.size() / 2] ^= 1;
  const Scratch changed("changed", bytes);
  const auto refused = RunProgram("orrery", {"simulate", "--replay", changed.path()}, true);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.output, HasSubstr("was changed"));
}

TEST(SimulateProgram, EqualInputsGiveEqualBytes) {
  const Scratch trace("lengths.csv", Lengths(200));
  const std::vector<std::string> arguments = {"simulate",
                                              "--trace",
                                              trace.path(),
                                              "--trace-format",
                                              "lengths",
                                              "--rate",
                                              "30",
                                              "--workers",
                                              "3",
                                              "--cost-profile",
                                              "linear:alpha_decode=5,per_seq=0.1,per_token=0.02",
                                              "--kv-cache-tokens",
                                              "4000",
                                              "--max-tokens",
                                              "100",
                                              "--slo",
                                              "ttft=100,tpot=12",
                                              "--seeds",
                                              "2",
                                              "--compare",
                                              "fcfs,round-robin",
                                              "--json"};
  std::vector<json> documents;
  for (int i = 0; i < 2; ++i) {
    const auto run = RunProgram("orrery", arguments);
    ASSERT_EQ(run.exit_code, 0) << run.output;
    documents.push_back(json::parse(run.output));
    ASSERT_EQ(documents.back()["runs"].size(), 4u);
    for (json& one : documents.back()["runs"]) {
      EXPECT_EQ(one["completed"], 200);
      EXPECT_EQ(one["duration"], one["simulated_s"]);
      one.erase("wall_s");
      one.erase("policy_us");
    }
  }
  EXPECT_EQ(documents[0].dump(), documents[1].dump());
  EXPECT_NE(documents[0]["runs"][0]["mean_ttft_ms"], documents[0]["runs"][1]["mean_ttft_ms"]);  // other seed
  const json& summary = documents[0]["summary"];
  EXPECT_EQ(summary[0]["policy"], "fcfs");
  EXPECT_LE(summary[0]["ci95_low"], summary[0]["mean"]);
}

TEST(SimulateProgram, APlannedRouterEarnsMoreThanQueuesOnWorkersAndTheSameEachTime) {
  const Scratch classes("pools.json", R"({"classes": [
    {"prompt_tokens": 300, "output_tokens": 1000, "arrival_rate_per_worker_s": 0.5, "abandon_rate_per_s": 0.1},
    {"prompt_tokens": 3000, "output_tokens": 400, "arrival_rate_per_worker_s": 0.5, "abandon_rate_per_s": 0.1}],
    "alpha_s": 0.0174, "beta_s_per_token": 6.2e-5, "solo_decode_rate_per_s": 45.45, "slots": 16,
    "prefill_chunk_tokens": 256, "price_prompt": 0.1, "price_output": 0.2, "fleet_sizes": [5]})");
  const std::vector<std::string> arguments = {
      "simulate",
      "--trace",
      classes.path(),
      "--trace-format",
      "classes",
      "--workers",
      "5",
      "--max-num-seqs",
      "17",
      "--max-step-tokens",
      "271",
      "--num-requests",
      "1000",
      "--warmup",
      "300",
      "--cost-profile",
      "linear:alpha_decode=22.0022,alpha_prefill=22.0022,per_token=0.0440226",
      "--compare",
      "gate-and-route,jsq-tokens",
      "--json"};
  std::vector<json> documents;
  for (int i = 0; i < 2; ++i) {
    const auto run = RunProgram("orrery", arguments);
    ASSERT_EQ(run.exit_code, 0) << run.output;
    documents.push_back(json::parse(run.output));
    for (json& one : documents.back()["runs"]) {
      one.erase("wall_s");
      one.erase("policy_us");
    }
  }
  EXPECT_EQ(documents[0].dump(), documents[1].dump());
  const json& runs = documents[0]["runs"];
  EXPECT_GT(runs[0]["reward_per_worker_s"], 250);
  EXPECT_GT(runs[0]["reward_per_worker_s"], runs[1]["reward_per_worker_s"]);
}

TEST(SimulateProgram, ServesEveryKindOfTraceWithTheProfileOfARealGpu) {
  const fs::path data = SharedFolder() / "data";
  if (!fs::exists(data / "traces")) GTEST_SKIP() << "no shared data at " << data;
  const struct {
    const char *format, *file;
    std::vector<std::string> more;
  } kCases[] = {
      {"azure", "traces/azure-2023/AzureLLMInferenceTrace_conv.csv.xz", {}},
      {"mooncake", "traces/mooncake/conversation_trace.jsonl.xz", {"--arrival", "gamma", "--rate", "2"}},
      {"lengths", "lengths/sharegpt_llama2.csv.xz", {"--rate", "10"}},
      {"servegen", "traces/servegen/m-large_rates.csv.xz", {"--rate", "20"}},
  };
  for (const auto& test : kCases) {
    std::vector<std::string> arguments = {
        "simulate",
        "--trace",
        (data / test.file).string(),
        "--trace-format",
        test.format,
        "--workers",
        "2",
        "--num-requests",
        "300",
        "--json",
        "--cost-profile",
        (data / "profiles/linear_cost_fits.json").string() + "#h200_sxm/llama3-8b/tp1/bfloat16"};
    arguments.insert(arguments.end(), test.more.begin(), test.more.end());
    const auto run = RunProgram("orrery", arguments);
    ASSERT_EQ(run.exit_code, 0) << test.format << run.output;
    const json result = json::parse(run.output);
    EXPECT_EQ(result["completed"], 300) << test.format;
    EXPECT_EQ(result["total_cached_tokens"].get<int64_t>() > 0, test.format == std::string("mooncake"));
  }
}

TEST(SimulateProgram, FailuresSlownessAndClassesShowInTheReport) {
  const Scratch trace("lengths.csv", Lengths(300)),
      classes("classes.yaml", R"(- {name: chat, share: 3, slo: "ttft=200,tpot=20"}
- {name: batch, share: 1, tenant: b, slo: "e2e=60000"}
)");
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {
        "simulate",     "--trace",        trace.path(),  "--trace-format", "lengths",     "--rate",
        "20",           "--workers",      "2",           "--router",       "round-robin", "--class",
        classes.path(), "--cost-profile", "constant:10", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto result = RunProgram("orrery", arguments);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    return json::parse(result.output);
  };
  const json calm = run({}), slow = run({"--slow", "worker=1,factor=3"});
  const json lost = run({"--fail", "worker=0,at=4,for=3"});
  EXPECT_EQ(calm["completed"], 300);
  EXPECT_EQ(calm["slo_attainment"], 1.0);
  const json& chat = calm["per_class"]["chat"];
  EXPECT_EQ(chat["completed"].get<int>() + calm["per_class"]["batch"]["completed"].get<int>(), 300);
  EXPECT_GT(chat["completed"].get<int>(), 180);
  // Every second request decodes at 30 ms: only the class with a target for that minds.
  EXPECT_LT(slow["per_class"]["chat"]["slo_attainment"], 0.7);
  EXPECT_EQ(slow["per_class"]["batch"]["slo_attainment"], 1.0);
  EXPECT_GT(lost["replayed"].get<int>(), 0);
  EXPECT_EQ(lost["completed"], 300);
  EXPECT_EQ(lost["total_output_tokens"], calm["total_output_tokens"]);
}

TEST(SimulateProgram, DrawsAPage) {
  const Scratch trace("lengths.csv", Lengths(60)), page("page.html");
  const auto run = RunProgram("orrery", {"simulate", "--trace", trace.path(), "--trace-format", "lengths",
                                         "--rate", "30", "--cost-profile", "constant:5", "--slo", "ttft=100",
                                         "--html", page.path(), "--explain", "3"});
  ASSERT_EQ(run.exit_code, 0) << run.output;
  EXPECT_THAT(run.output, HasSubstr("arrives: prompt "));
  const std::string html = page.Read();
  for (const char* title :
       {"Requests waiting", "KV cache in use", "Time to first token", "Goodput against rate"}) {
    EXPECT_THAT(html, HasSubstr(title));
  }
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find("src="), std::string::npos);
}

TEST(SimulateProgram, OneClearLineForWrongInput) {
  const Scratch good("lengths.csv", Lengths(5));
  const Scratch bad("bad.csv", "num_prefill_tokens,num_decode_tokens\n5,5\n5,0\n");
  const Scratch profile("fits.json", R"({"kernel_composed": [{"gpu": "h200_sxm", "model": "m", "tp": 1,
    "decode_ms": {"alpha": 1, "per_seq": 0, "per_kv_token": 0},
    "prefill_ms": {"alpha": 1, "per_token": 0, "per_token_sq": 0}}]})");
  const struct {
    std::vector<std::string> more;
    const char* says;
  } kCases[] = {
      {{"--trace", bad.path(), "--cost-profile", "constant:5"}, "bad.csv:3: num_decode_tokens '0'"},
      {{"--trace", "/nonexistent", "--cost-profile", "constant:5"}, "/nonexistent"},
      {{"--trace", good.path(), "--cost-profile", profile.path() + "#h200_sxm/n/tp1"},
       "did you mean 'h200_sxm/m/tp1'"},
      {{"--trace", good.path(), "--cost-profile", "constant:fast"}, "cost-profile: "},
      {{"--trace", good.path(), "--cost-profile", "online:constant:5"}, "cost-profile: 'online'"},
      {{"--trace", good.path(), "--cost-profile", "constant:5", "--scheduler", "fcsf"}, "fcfs"},
      {{"--trace", good.path(), "--cost-profile", "constant:5", "--router", "round-robbin"}, "round-robin"},
      {{"--trace", good.path(), "--cost-profile", "constant:5", "--compare", "fcfs,fcgs"}, "fcfs"},
      {{"--trace", good.path(), "--cost-profile", "constant:5", "--scheduler", "fcfs:budget=1"},
       "token_budget"},
      {{"--trace", good.path(), "--cost-profile", "constant:5", "--fail", "worker=4,at=1"},
       "there is no worker 4"},
      {{"--trace", good.path(), "--cost-profile", "constant:5", "--workers", "0"}, "workers: must be in"},
      {{"--trace", good.path(), "--cost-profile", "constant:5", "--router", "gate-and-route"},
       "--trace-format classes"},
  };
  for (const auto& test : kCases) {
    std::vector<std::string> arguments = {"simulate", "--trace-format", "lengths", "--rate", "5"};
    arguments.insert(arguments.end(), test.more.begin(), test.more.end());
    const auto run = RunProgram("orrery", arguments, true);
    EXPECT_EQ(run.exit_code, 2) << run.output;
    EXPECT_THAT(run.output, HasSubstr(test.says));
    EXPECT_EQ(std::count(run.output.begin(), run.output.end(), '\n'), 1) << run.output;
  }
}

}  // namespace
}  // namespace orrery::testing
