// A whole model's steps on the CUDA backend: decode at several batch sizes and contexts, and prefill, with
// the time that the host needs for a step. Prints one JSON object of rows; tests/gpu/report.py puts goals and
// floors beside them.
//
//   gpu_engine_bench MODEL_DIR [--decode 1x1024,64x1024] [--prefill 2048,8192] [--steps N]
//                    [--invariant on|off] [--kv bf16|fp8] [--backend cuda|cpu] [--cache DIR]
//
// --cache: where matrix product algorithms are kept for the next run (orrery-gemm in the folder for temporary
// files).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/cpu_engine.h"
#include "engine/cuda_engine.h"
#include "tests/engine/plan_driver.h"

namespace orrery {
namespace {

using testing::PlanDriver;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

[[noreturn]] void Fail(const std::string& message) {
  std::fprintf(stderr, "gpu_engine_bench: %s\n", message.c_str());
  std::exit(1);
}
void Check(const absl::Status& status) {
  if (!status.ok()) Fail(status.ToString());
}

struct Median {
  double median, least, most;
};
Median Of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
}

// The time of Launch is the host's alone.
class TimedExecutor final : public Executor {
 public:
  explicit TimedExecutor(Executor& executor) : executor_(executor) {}
  const EngineLimits& limits() const override { return executor_.limits(); }
  absl::Status Launch(const StepPlan& plan) override {
    const double begin = Now();
    absl::Status status = executor_.Launch(plan);
    launch = Now() - begin;
    begin_ = begin;
    return status;
  }
  absl::Status Wait(StepId step, StepResult* result) override {
    absl::Status status = executor_.Wait(step, result);
    step_seconds = Now() - begin_;
    return status;
  }
  int max_in_flight() const override { return 1; }
  double launch = 0, step_seconds = 0;

 private:
  Executor& executor_;
  double begin_ = 0;
};

struct Arguments {
  EngineOptions engine;
  bool cuda = true;
  std::vector<std::pair<int, int>> decode;  // batch, context
  std::vector<int> prefill;
  int steps = 40;
};

Arguments Parse(int argc, char** argv) {
  if (argc < 2 || argc % 2 != 0)
    Fail(
        "MODEL_DIR [--decode 1x1024,...] [--prefill 2048,...] [--steps N] [--invariant on|off] [--kv "
        "bf16|fp8] "
        "[--backend cuda|cpu] [--cache DIR]");
  Arguments arguments;
  arguments.engine.model_dir = argv[1];
  arguments.engine.batch_invariant = false;
  arguments.engine.cache_dir = std::filesystem::temp_directory_path() / "orrery-gemm";
  for (int i = 2; i < argc; i += 2) {
    const std::string flag = argv[i];
    char* at = argv[i + 1];
    if (flag == "--steps") {
      arguments.steps = std::max(1, std::atoi(at));
    } else if (flag == "--invariant") {
      arguments.engine.batch_invariant = std::string(at) == "on";
    } else if (flag == "--kv") {
      arguments.engine.kv_dtype = std::string(at) == "fp8" ? DType::kE4M3 : DType::kBF16;
    } else if (flag == "--cache") {
      arguments.engine.cache_dir = at;
    } else if (flag == "--backend") {
      arguments.cuda = std::string(at) == "cuda";
    } else if (flag == "--decode" || flag == "--prefill") {
      while (*at != 0) {
        const auto first = static_cast<int>(std::strtol(at, &at, 10));
        if (flag == "--prefill") {
          arguments.prefill.push_back(first);
        } else if (*at++ == 'x') {
          arguments.decode.emplace_back(first, static_cast<int>(std::strtol(at, &at, 10)));
        } else {
          Fail("--decode is a list of BATCHxCONTEXT");
        }
        if (*at == ',') ++at;
      }
    } else {
      Fail("unknown flag " + flag);
    }
  }
  return arguments;
}

class Bench {
 public:
  explicit Bench(const Arguments& arguments) : arguments_(arguments) {
    EngineOptions options = arguments.engine;
    int64_t tokens = 0;
    for (const auto& [batch, context] : arguments.decode) {
      options.max_num_seqs = std::max(options.max_num_seqs, batch + 1);
      tokens = std::max(tokens, int64_t{batch + 1} * (context + 4 * arguments.steps + 64));
    }
    for (int length : arguments.prefill) {
      options.max_step_tokens = std::max(options.max_step_tokens, length);
      tokens = std::max(tokens, int64_t{2} * length);
    }
    options.dtype = DType::kBF16;
    options.kv_cache_tokens = tokens;
    const double begin = Now();
    absl::StatusOr<LoadedEngines> engines =
        arguments.cuda ? LoadCudaEngines(options, OpenCudaDevice) : LoadCpuEngines(options);
    if (!engines.ok()) Fail(engines.status().ToString());
    engine_ = std::move(engines->executors.front());
    std::printf(
        "{\"model\": \"%s\", \"load_s\": %.2f, \"weight_gb\": %.3f, \"activation_gb\": %.3f, \"kv_gb\": "
        "%.3f, \"rows\": [",
        arguments.engine.model_dir.c_str(), Now() - begin, engines->plan.memory.weight_bytes / 1e9,
        engines->plan.memory.activation_bytes / 1e9, engines->plan.memory.kv_bytes / 1e9);
  }

  void Run() {
    for (int length : arguments_.prefill) Prefill(length);
    for (const auto& [batch, context] : arguments_.decode) Decode(batch, context);
    std::printf("\n]}\n");
  }

 private:
  std::vector<TokenId> Prompt(int length) {
    std::vector<TokenId> tokens(static_cast<size_t>(length));
    for (TokenId& token : tokens) {
      random_ = random_ * 6364136223846793005u + 1442695040888963407u;
      token = static_cast<TokenId>((random_ >> 33) % static_cast<uint64_t>(engine_->limits().vocab_size));
    }
    return tokens;
  }
  void Print(const std::string& name, const std::vector<double>& steps, const std::vector<double>& launches,
             int64_t tokens) {
    const Median step = Of(steps), launch = Of(launches);
    std::printf(
        "%s\n  {\"case\": \"%s\", \"ms\": %.4f, \"least_ms\": %.4f, \"most_ms\": %.4f, \"launch_us\": %.1f, "
        "\"tokens_s\": %.0f}",
        first_ ? "" : ",", name.c_str(), step.median * 1e3, step.least * 1e3, step.most * 1e3,
        launch.median * 1e6, static_cast<double>(tokens) / step.median);
    std::fflush(stdout);
    first_ = false;
  }
  void Prefill(int length) {
    TimedExecutor timed(*engine_);
    PlanDriver driver(timed);
    std::vector<double> steps, launches;
    for (int round = 0; round < 6; ++round) {
      const int handle = driver.Add(Prompt(length), 1, testing::Greedy());
      Check(driver.Step({{handle, length}}));
      driver.Release(handle);
      if (round > 0) steps.push_back(timed.step_seconds), launches.push_back(timed.launch);
    }
    Print("prefill " + std::to_string(length), steps, launches, length);
    Check(driver.Step({}));
  }
  // One prompt is computed; the others get copies of its blocks, each their own.
  void Decode(int batch, int context) {
    TimedExecutor timed(*engine_);
    PlanDriver driver(timed);
    const int chunk = engine_->limits().max_step_tokens;
    const std::vector<TokenId> prompt = Prompt(context);
    const int first = driver.Add(prompt, 1 << 20, testing::Greedy());
    while (driver.sequence(first).computed < context - 1) {
      const int left = context - 1 - driver.sequence(first).computed;
      Check(driver.Step({{first, std::min(left, chunk)}}));
    }
    std::vector<std::pair<int, int32_t>> work = {{first, 1}};
    for (int i = 1; i < batch; ++i) {
      std::vector<TokenId> tokens = prompt;
      tokens.back() = Prompt(1)[0];
      const int handle = driver.Add(std::move(tokens), 1 << 20, testing::Greedy());
      auto& sequence = driver.sequence(handle);
      for (BlockId block : driver.sequence(first).blocks) {
        sequence.blocks.push_back(driver.TakeBlock());
        driver.CopyNext(block, sequence.blocks.back());
      }
      sequence.computed = context - 1;
      work.emplace_back(handle, 1);
    }
    std::vector<double> steps, launches;
    for (int i = 0; i < arguments_.steps + 5; ++i) {
      Check(driver.Step(work));
      if (i >= 5) steps.push_back(timed.step_seconds), launches.push_back(timed.launch);
    }
    const std::string name = "decode b" + std::to_string(batch) + " ctx" + std::to_string(context);
    Print(name, steps, launches, batch);
    if (engine_->max_in_flight() > 1) Ahead(name + " ahead", driver, work);
    for (const auto& [handle, count] : work) driver.Release(handle);
    Check(driver.Step({}));
  }

  // The same steps, each launched while the one before it runs, from the tokens that that one samples. What
  // the driver knows of the sequences is not true any more.
  void Ahead(const std::string& name, PlanDriver& driver, const std::vector<std::pair<int, int32_t>>& work) {
    const int block_tokens = engine_->limits().block_tokens;
    for (const auto& [handle, count] : work) {
      auto& sequence = driver.sequence(handle);
      const int tokens = sequence.computed + arguments_.steps + 7;
      while (static_cast<int>(sequence.blocks.size()) * block_tokens < tokens) {
        sequence.blocks.push_back(driver.TakeBlock());
      }
    }
    Check(driver.Step(work));
    std::vector<StepPlan> plans = {driver.plan(), driver.plan()};
    for (Slice& slice : plans[1].slices) ++slice.begin, ++slice.output_index;
    StepResult result;
    std::vector<double> steps, launches;
    double done = 0;
    for (int i = 0; i < arguments_.steps + 5; ++i) {
      StepPlan& plan = plans[static_cast<size_t>(i + 1) % 2];
      const StepPlan& before = plans[static_cast<size_t>(i) % 2];
      plan.step = StepId{Value(before.step) + 1};
      for (size_t s = 0; i > 0 && s < plan.slices.size(); ++s) {
        plan.slices[s].begin = before.slices[s].begin + 1;
        plan.slices[s].output_index = before.slices[s].output_index + 1;
        plan.slices[s].input = InputSource::kPreviousStep;
      }
      const double begin = Now();
      Check(engine_->Launch(plan));
      const double launched = Now();
      if (i > 0) Check(engine_->Wait(before.step, &result));
      const double now = Now();
      if (i >= 5) steps.push_back(now - done), launches.push_back(launched - begin);
      done = now;
    }
    Check(engine_->Wait(plans[static_cast<size_t>(arguments_.steps + 5) % 2].step, &result));
    Print(name, steps, launches, static_cast<int64_t>(work.size()));
  }

  const Arguments arguments_;
  std::unique_ptr<ModelExecutor> engine_;
  uint64_t random_ = 7;
  bool first_ = true;
};

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) { orrery::Bench(orrery::Parse(argc, argv)).Run(); }
