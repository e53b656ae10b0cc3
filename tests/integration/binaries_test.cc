// The built binaries: orreryd serves real models over gRPC, orrery talks to it.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/process.h"
#include "tests/places.h"
#include "tests/server/eventually.h"
#include "tests/server/http_get.h"

namespace orrery::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

fs::path Stories() { return SharedFolder() / "data/models/stories260K"; }

// A daemon on free ports.
class Daemon {
 public:
  explicit Daemon(std::vector<std::string> arguments, const std::string& listen = "127.0.0.1:0") {
    for (const std::string& more :
         {std::string("--listen"), listen, std::string("--metrics-listen"), std::string("127.0.0.1:0")}) {
      arguments.push_back(more);
    }
    process_ = std::make_unique<Process>(BinaryPath("orreryd"), arguments, true);
    if (!process_->ReadUntil("metrics port ") || !process_->ReadUntil("\n")) return;
    const std::string& log = process_->seen();
    target_ = "127.0.0.1:" + std::to_string(std::atoi(log.c_str() + log.find("grpc port ") + 10));
    http_ = std::atoi(log.c_str() + log.find("metrics port ") + 13);
  }
  const std::string& target() const { return target_; }
  // The sum of a metric over its labels.
  double Metric(const std::string& name) const {
    std::istringstream page(Get(http_, "/metrics"));
    double sum = 0;
    for (std::string line; std::getline(page, line);) {
      const bool named = line.rfind(name, 0) == 0 && (line[name.size()] == '{' || line[name.size()] == ' ');
      if (named) sum += std::atof(line.c_str() + line.rfind(' '));
    }
    return sum;
  }
  Process& process() { return *process_; }

  RunResult Generate(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"generate", "--target", target_});
    return RunProgram("orrery", arguments);
  }

 private:
  std::unique_ptr<Process> process_;
  std::string target_;
  int http_ = 0;
};

TEST(Binaries, GreedyTokensAndTextOfStoriesEqualTheReference) {
  if (!fs::exists(Stories())) GTEST_SKIP() << "needs " << Stories();
  Daemon daemon({"--model", (Stories() / "hf").string(), "--kv-cache-tokens", "4096"});
  ASSERT_FALSE(daemon.target().empty()) << daemon.process().seen();
  std::ifstream file(Stories() / "greedy_cases.json");
  const json cases = json::parse(file)["cases"];
  ASSERT_GE(cases.size(), 1u);
  for (const json& expected : cases) {
    const RunResult run = daemon.Generate({"--json", "--temperature", "0", "--ignore-eos", "--max-tokens",
                                           "200", "--prompt", expected["prompt"].get<std::string>()});
    ASSERT_EQ(run.exit_code, 0) << run.output;
    const json got = json::parse(run.output);
    EXPECT_EQ(got["prompt_token_ids"], expected["prompt_tokens"]);
    EXPECT_EQ(got["token_ids"], expected["generated_tokens"]);
    // A text that stops inside a character is the only one that may differ, in its last character.
    EXPECT_EQ(got["text"], expected["generated_text"]);
    EXPECT_EQ(got["finish_reason"], "length");
    EXPECT_EQ(got["usage"]["completion_tokens"], 200);
    EXPECT_NEAR(got["timings"]["queue_ms"].get<double>() + got["timings"]["prefill_ms"].get<double>(),
                got["timings"]["ttft_ms"].get<double>(), 1e-6);
  }
  daemon.process().Signal(SIGTERM);
  EXPECT_EQ(daemon.process().Finish(), 0);
}

TEST(Binaries, DemonstrationModelAnswersAChat) {
  const fs::path model = DemoModel();
  ASSERT_TRUE(fs::exists(model));
  Daemon daemon({"--model", model.string(), "--kv-cache-tokens", "8192"});
  ASSERT_FALSE(daemon.target().empty()) << daemon.process().seen();
  const fs::path chat = fs::temp_directory_path() / ("orrery_chat_" + std::to_string(getpid()) + ".json");
  std::ofstream(chat) << R"([{"role": "user", "content": "Tell me a story about a fox."}])";
  const RunResult once =
      daemon.Generate({"--json", "--chat", chat.string(), "--seed", "1", "--max-tokens", "300"});
  ASSERT_EQ(once.exit_code, 0) << once.output;
  const json answer = json::parse(once.output);
  EXPECT_FALSE(answer["text"].get<std::string>().empty());
  const RunResult again =
      daemon.Generate({"--json", "--chat", chat.string(), "--seed", "1", "--max-tokens", "300"});
  EXPECT_EQ(json::parse(again.output)["token_ids"], answer["token_ids"]);  // equal seed, equal answer
  const RunResult several = daemon.Generate({"--json", "--chat", chat.string(), "--seed", "1", "--max-tokens",
                                             "20", "--n", "3", "--logprobs", "2", "--prompt-logprobs", "1"});
  const json choices = json::parse(several.output);
  ASSERT_EQ(choices["choices"].size(), 3u);
  EXPECT_EQ(choices["logprobs"].size(), choices["token_ids"].size());
  const json& prompt = choices["prompt_logprobs"];
  ASSERT_EQ(prompt.size(), choices["prompt_token_ids"].size());
  EXPECT_TRUE(prompt[0].is_null());
  for (size_t i = 1; i < prompt.size(); ++i) {
    EXPECT_EQ(prompt[i]["id"], choices["prompt_token_ids"][i]);
    EXPECT_LE(prompt[i]["logprob"], prompt[i]["top"][0][1]);
  }
  fs::remove(chat);
}

// Both read the same weights; placed in turn, both answer the same.
TEST(Binaries, TwoWorkersOfOneProcessAnswerAlike) {
  Daemon daemon({"--model", DemoModel().string(), "--kv-cache-tokens", "4096", "--workers", "2", "--router",
                 "round-robin"});
  ASSERT_FALSE(daemon.target().empty()) << daemon.process().seen();
  std::vector<json> answers;
  for (int i = 0; i < 2; ++i) {
    const RunResult run = daemon.Generate({"--json", "--temperature", "0", "--ignore-eos", "--max-tokens",
                                           "40", "--prompt", "Once upon a time"});
    ASSERT_EQ(run.exit_code, 0) << run.output;
    answers.push_back(json::parse(run.output));
  }
  EXPECT_EQ(answers[0]["token_ids"].size(), 40u);
  EXPECT_EQ(answers[0]["token_ids"], answers[1]["token_ids"]);
  daemon.process().Signal(SIGTERM);
  EXPECT_EQ(daemon.process().Finish(), 0);
}

std::vector<std::string> Bench(const std::string& target, const fs::path& save) {
  return {"bench", "--target",      target,   "--dataset",     "random", "--num-requests",
          "500",   "--concurrency", "30",     "--input-len",   "24",     "--output-len",
          "60",    "--range-ratio", "0.5",    "--temperature", "0",      "--seed",
          "5",     "--ignore-eos",  "--save", save.string(),   "--json"};
}

json Saved(const fs::path& path) {
  std::ifstream file(path);
  return json::parse(file, nullptr, false);
}

// A worker process is killed in the middle of what it does, again and again (ORRERY_KILLS times), and comes
// back each time: every request gets the tokens that a single daemon gives it.
TEST(Binaries, WorkersThatAreKilledLoseNothing) {
  const std::string model = DemoModel().string();
  const fs::path folder = fs::temp_directory_path();
  const fs::path expected = folder / ("orrery_one_" + std::to_string(getpid()) + ".json");
  const fs::path saved = folder / ("orrery_many_" + std::to_string(getpid()) + ".json");
  {
    Daemon daemon({"--model", model, "--kv-cache-tokens", "8192"});
    ASSERT_EQ(RunProgram("orrery", Bench(daemon.target(), expected)).exit_code, 0);
  }
  const std::vector<std::string> worker_flags = {"--role",    "worker", "--model",           model,
                                                 "--threads", "1",      "--kv-cache-tokens", "8192"};
  std::vector<std::unique_ptr<Daemon>> workers;
  for (int i = 0; i < 3; ++i) workers.push_back(std::make_unique<Daemon>(worker_flags));
  std::vector<std::string> router_flags = {"--role", "router", "--model", model, "--heartbeat", "500ms"};
  for (const auto& worker : workers)
    router_flags.insert(router_flags.end(), {"--worker-address", worker->target()});
  Daemon router(router_flags);
  ASSERT_FALSE(router.target().empty()) << router.process().seen();
  const std::string bench = BinaryPath("orrery");
  const char* wanted = std::getenv("ORRERY_KILLS");
  const int num_kills = wanted == nullptr ? 4 : std::atoi(wanted);
  double retries = 0;
  int kills = 0;
  for (int runs = 0; kills < num_kills; ++runs) {
    ASSERT_LT(runs, 100) << "no worker is ever busy";
    Process client(bench, Bench(router.target(), saved), false);
    for (size_t next = 0; kills < num_kills; ++next) {
      const size_t victim = next % workers.size();
      const auto busy = [&] { return workers[victim]->Metric("orrery_requests_running") >= 5; };
      bool is_busy = false;
      for (int i = 0; i < 100 && !is_busy; ++i) {
        is_busy = busy();
        std::this_thread::sleep_for(std::chrono::milliseconds(is_busy ? 20 : 2));
      }
      if (!is_busy) break;  // this run of the generator is over
      const std::string address = workers[victim]->target();
      workers[victim].reset();
      ++kills;
      workers[victim] = std::make_unique<Daemon>(worker_flags, address);
      ASSERT_EQ(workers[victim]->target(), address);
    }
    ASSERT_EQ(client.Finish(), 0) << client.seen();
    const json run = json::parse(client.seen());
    EXPECT_EQ(run["completed"], 500);
    EXPECT_EQ(run["failed"], 0);
    const json rows = Saved(saved), alone = Saved(expected);
    ASSERT_EQ(rows["output_digests"].size(), 500u);
    EXPECT_EQ(rows["output_digests"], alone["output_digests"]);
    EXPECT_EQ(rows["output_lens"], alone["output_lens"]);
    double attempts = 0;
    for (const json& count : rows["attempts"]) attempts += count.get<double>();
    retries += attempts - 500;
  }
  EXPECT_GE(retries, kills);
  EXPECT_EQ(router.Metric("orrery_retries_total"), retries);
  fs::remove(expected);
  fs::remove(saved);
}

TEST(Binaries, ExitCodesAndErrorDocuments) {
  const RunResult nobody =
      RunProgram("orrery", {"generate", "--target", "127.0.0.1:1", "--prompt", "x", "--json"});
  EXPECT_EQ(nobody.exit_code, 5);
  EXPECT_EQ(json::parse(nobody.output)["error"]["code"], "UNAVAILABLE");
  EXPECT_EQ(RunProgram("orrery", {"generate", "--json"}).exit_code, 2);
  EXPECT_EQ(RunProgram("orrery", {"generate", "--token-ids", "1,x", "--json"}).exit_code, 2);
  const RunResult typo = RunProgram("orrery", {"generat"}, true);
  EXPECT_EQ(typo.exit_code, 2);
  EXPECT_THAT(typo.output, HasSubstr("did you mean 'generate'"));
  const RunResult model = RunProgram("orreryd", {"--model", "/nonexistent"}, true);
  EXPECT_EQ(model.exit_code, 2);
  EXPECT_THAT(model.output, HasSubstr("--model: '/nonexistent' is not a folder"));
  EXPECT_EQ(std::count(model.output.begin(), model.output.end(), '\n'), 1);
  // Where there is a device it is described; elsewhere one line says what is missing.
  const RunResult cuda =
      RunProgram("orreryd", {"--model", DemoModel().string(), "--backend", "cuda", "--dry-run"}, true);
  if (cuda.exit_code != 0) {
    EXPECT_EQ(cuda.exit_code, 2);
    EXPECT_THAT(cuda.output, HasSubstr("--backend: cuda: "));
    EXPECT_EQ(std::count(cuda.output.begin(), cuda.output.end(), '\n'), 1) << cuda.output;
  } else {
    EXPECT_THAT(cuda.output, HasSubstr("backend: cuda, "));
  }
  const RunResult moves =
      RunProgram("orreryd", {"--model", DemoModel().string(), "--router", "gate-and-route"}, true);
  EXPECT_EQ(moves.exit_code, 2);
  EXPECT_THAT(moves.output, HasSubstr("--router: gate-and-route moves KV between workers"));
  EXPECT_EQ(std::count(moves.output.begin(), moves.output.end(), '\n'), 1) << moves.output;
  const fs::path key = fs::temp_directory_path() / ("orrery_key_" + std::to_string(getpid()));
  const auto with_key = [&](const std::string& secret) {
    std::ofstream(key) << secret;
    return RunProgram("orreryd", {"--model", DemoModel().string(), "--hash-key-file", key.string()}, true);
  };
  EXPECT_THAT(with_key("too short\n").output, HasSubstr("must hold 16 to 4096 bytes, not 9"));
  EXPECT_THAT(with_key(std::string(5000, 'x')).output, HasSubstr("must hold 16 to 4096 bytes"));
  fs::remove(key);
  const RunResult no_key =
      RunProgram("orreryd", {"--model", DemoModel().string(), "--hash-key-file", key.string()}, true);
  EXPECT_EQ(no_key.exit_code, 2);
  EXPECT_THAT(no_key.output, HasSubstr("--hash-key-file: cannot read"));
  const RunResult flag = RunProgram("orreryd", {"--modle", "x"}, true);
  EXPECT_EQ(flag.exit_code, 2);
  EXPECT_THAT(flag.output, HasSubstr("did you mean 'model'"));
  const RunResult policies = RunProgram("orrery", {"policies", "--json"});
  EXPECT_EQ(policies.exit_code, 0);
  EXPECT_EQ(json::parse(policies.output)[0]["name"], "fcfs");
}

// A step that takes an hour: the daemon leaves without it.
TEST(Binaries, AHungStepDoesNotKeepTheDaemon) {
  Process daemon(BinaryPath("orreryd"),
                 {"--model", DemoModel().string(), "--backend", "modeled", "--cost-profile",
                  "constant:3600000", "--step-timeout", "0.05s", "--drain-timeout", "0.1s", "--listen",
                  "127.0.0.1:0", "--metrics-listen", "", "--log-level", "info"},
                 true);
  ASSERT_TRUE(daemon.ReadUntil("step takes longer than --step-timeout")) << daemon.seen();
  daemon.Signal(SIGTERM);
  EXPECT_EQ(daemon.Finish(), 1) << daemon.seen();
  EXPECT_THAT(daemon.seen(), HasSubstr("the engine's step does not end"));
}

// Fifty tokens of 20 ms: the signal comes while they do.
TEST(Binaries, TheRequestThatRunsIsFinishedAfterSigterm) {
  Daemon daemon({"--model", DemoModel().string(), "--backend", "modeled", "--cost-profile", "constant:20"});
  ASSERT_FALSE(daemon.target().empty()) << daemon.process().seen();
  Process client(
      BinaryPath("orrery"),
      {"generate", "--target", daemon.target(), "--prompt", "x", "--max-tokens", "50", "--ignore-eos"}, true);
  ASSERT_TRUE(client.ReadAny());
  daemon.process().Signal(SIGTERM);
  EXPECT_EQ(client.Finish(), 0) << client.seen();
  EXPECT_EQ(daemon.process().Finish(), 0) << daemon.process().seen();
  EXPECT_THAT(daemon.process().seen(), HasSubstr("outcome=length"));
  EXPECT_THAT(daemon.process().seen(), HasSubstr("output=50"));
}

// A journal that nobody reads yet keeps the daemon in its start.
TEST(Binaries, SigtermWhileLoadingEndsTheDaemon) {
  const fs::path pipe = fs::temp_directory_path() / ("orrery_pipe_" + std::to_string(getpid()));
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  Process daemon(
      BinaryPath("orreryd"),
      {"--model", DemoModel().string(), "--backend", "modeled", "--cost-profile", "constant:1", "--listen",
       "127.0.0.1:0", "--metrics-listen", "", "--record", pipe.string(), "--log-level", "debug"},
      true);
  EXPECT_TRUE(daemon.ReadUntil("loading "));
  daemon.Signal(SIGTERM);
  EXPECT_EQ(daemon.Finish(), 0) << daemon.seen();
  EXPECT_THAT(daemon.seen(), HasSubstr("stopped while loading"));
  fs::remove(pipe);
}

// A copy of the demonstration model that a test may spoil.
class BrokenModel {
 public:
  BrokenModel() { fs::copy(DemoModel(), folder_, fs::copy_options::recursive); }
  ~BrokenModel() { fs::remove_all(folder_); }
  fs::path operator/(const char* file) const { return folder_ / file; }
  // Sets one key of config.json.
  void Configure(const char* key, const json& value) const {
    json config = json::parse(std::ifstream(DemoModel() / "config.json"));
    config[key] = value;
    std::ofstream(folder_ / "config.json") << config;
  }
  RunResult Serve() const {
    return RunProgram("orreryd",
                      {"--model", folder_.string(), "--kv-cache-tokens", "4096", "--listen", "127.0.0.1:0",
                       "--metrics-listen", "", "--log-level", "error"},
                      true);
  }

 private:
  const fs::path folder_ = fs::temp_directory_path() / ("orrery_broken_" + std::to_string(getpid()));
};

void ExpectRefused(const BrokenModel& model, const std::string& why) {
  const RunResult run = model.Serve();
  EXPECT_EQ(run.exit_code, 2) << run.output;
  EXPECT_THAT(run.output, HasSubstr(why));
  EXPECT_EQ(std::count(run.output.begin(), run.output.end(), '\n'), 1) << run.output;
}

TEST(Binaries, ModelsThatCannotBeServedAreRefusedInOneLine) {
  {
    BrokenModel model;
    fs::resize_file(model / "model.safetensors", fs::file_size(model / "model.safetensors") / 2);
    ExpectRefused(model, "model.safetensors");
  }
  {
    BrokenModel model;
    model.Configure("architectures", json::array({"MambaForCausalLM"}));
    ExpectRefused(model, "MambaForCausalLM");
  }
  {
    BrokenModel model;
    model.Configure("quantization_config", {{"quant_method", "gptq"}, {"bits", 4}});
    ExpectRefused(model, "gptq");
  }
  for (const char* file : {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}) {
    BrokenModel model;
    fs::remove(model / file);
    ASSERT_EQ(mkfifo((model / file).c_str(), 0600), 0);
    ExpectRefused(model, "not a regular file");
  }
}

// Weights that are not numbers make logits that are none: the daemon says so once and is gone.
TEST(Binaries, FailedWarmUpEndsTheDaemon) {
  BrokenModel model;
  const fs::path weights = model / "model.safetensors";
  std::fstream file(weights, std::ios::binary | std::ios::in | std::ios::out);
  uint64_t header = 0;
  file.read(reinterpret_cast<char*>(&header), sizeof header);
  file.seekp(static_cast<std::streamoff>(sizeof header + header));
  const std::string nans(fs::file_size(weights) - sizeof header - header, '\xff');  // in any type of float
  file.write(nans.data(), static_cast<std::streamsize>(nans.size()));
  file.close();
  const RunResult run = model.Serve();
  EXPECT_EQ(run.exit_code, 1) << run.output;
  EXPECT_THAT(run.output, HasSubstr("warm-up failed, the server cannot serve: "));
  EXPECT_EQ(std::count(run.output.begin(), run.output.end(), '\n'), 1) << run.output;
}

// A socket that takes connections and says nothing.
TEST(Binaries, AServerThatNeverAnswersIsWaitedForUntilTheTimeout) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(fd, 8), 0);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const RunResult run =
      RunProgram("orrery", {"generate", "--target", "127.0.0.1:" + std::to_string(ntohs(address.sin_port)),
                            "--prompt", "x", "--timeout", "0.3", "--json"});
  close(fd);
  EXPECT_EQ(run.exit_code, 5);
  const json error = json::parse(run.output)["error"];
  EXPECT_EQ(error["reason"], "timeout");
  EXPECT_EQ(error["code"], "DEADLINE_EXCEEDED");
}

TEST(Binaries, DemoDryRunTokenizeAndRefusals) {
  const std::string model = DemoModel().string();
  const RunResult plan = RunProgram("orreryd", {"--model", model, "--dry-run", "--kv-cache-tokens", "4096"});
  EXPECT_EQ(plan.exit_code, 0);
  EXPECT_THAT(plan.output, HasSubstr("kv pool"));
  // 4 layers of 2 x 128 values of 2 bytes: 2,048 bytes a token, see the model's config.json.
  const RunResult modeled = RunProgram(
      "orreryd", {"--model", model, "--backend", "modeled", "--dry-run", "--kv-cache-bytes", "1MiB"});
  EXPECT_EQ(modeled.exit_code, 0) << modeled.output;
  EXPECT_THAT(modeled.output, HasSubstr("kv pool: 32 blocks of 16 tokens"));
  const RunResult typo =
      RunProgram("orreryd", {"--model", model, "--dry-run", "--scheduler", "mcsf"}, /*with_errors=*/true);
  EXPECT_EQ(typo.exit_code, 2);
  EXPECT_THAT(typo.output, HasSubstr("--scheduler: unknown batch policy 'mcsf'"));
  const RunResult ids =
      RunProgram("orrery", {"tokenize", "--model", model, "--text", "a fox", "--no-special", "--json"});
  ASSERT_EQ(ids.exit_code, 0);
  std::string list;
  const json encoded = json::parse(ids.output);
  for (const json& id : encoded["token_ids"]) list += (list.empty() ? "" : ",") + id.dump();
  const RunResult text =
      RunProgram("orrery", {"detokenize", "--model", model, "--token-ids", list, "--json"});
  EXPECT_EQ(json::parse(text.output)["text"], "a fox");
  Daemon daemon({"--model", model, "--kv-cache-tokens", "4096"});
  ASSERT_FALSE(daemon.target().empty()) << daemon.process().seen();
  const RunResult bad = daemon.Generate({"--prompt", "x", "--top-p", "nan", "--json"});
  EXPECT_EQ(bad.exit_code, 6);
  EXPECT_EQ(json::parse(bad.output)["error"]["field"], "sampling.top_p");
}

}  // namespace
}  // namespace orrery::testing
