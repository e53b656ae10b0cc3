// The engine alone, without scheduler and server: decode at several batch sizes and prefill, beside the read
// bandwidth and the tile peak of this machine measured in the same run; where the time goes by operation;
// load time and memory.
//
//   engine_bench MODEL_DIR [--weights native|int8] [--threads N] [--context N] [--batches 1,16,64]
//                [--prefill N] [--steps N] [--limits READ_GB_S,AMX_TFLOP_S]
//
// Host time is what a step takes outside its kernels: Launch and Wait without the spans in which the
// backend's stream was inside a kernel, so checks, gathering, the model's code, what lies between two
// kernels, and results. A span begins when everything before it is done, the fetch of the operation from
// memory included, and ends when its kernel's last instruction is (a fenced read of the processor's counter);
// what these readings take themselves, some 30 ns twice for each kernel, counts as host time.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/backend_cpu.h"
#include "engine/cpu_engine.h"
#include "kernels/cpu/ticks.h"
#include "scheduler/base/random.h"
#include "tests/bench/machine_limits.h"
#include "tests/engine/plan_driver.h"

namespace orrery {
namespace {

double ClockSeconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double MeasureSecondsPerTick() {
  const double begin = ClockSeconds();
  const uint64_t ticks = Ticks();
  while (ClockSeconds() - begin < 0.05) {
  }
  return (ClockSeconds() - begin) / static_cast<double>(Ticks() - ticks);
}

double Seconds(uint64_t ticks) {
  static const double seconds_per_tick = MeasureSecondsPerTick();
  return static_cast<double>(ticks) * seconds_per_tick;
}

// Seconds by kernel, in the order of their first runs.
class KernelTimes {
 public:
  void Add(const KernelTrace& trace) {
    for (size_t i = 0; i < trace.spans.size(); ++i) {
      const KernelTrace::Span& span = trace.spans[i];
      const bool head = i + 1 < trace.spans.size() && std::strcmp(trace.spans[i + 1].name, "sample") == 0;
      Of(head ? "head" : span.name) += Seconds(span.end - span.begin);
    }
  }
  void Print(double steps) const {
    std::printf("   ");
    for (const auto& [name, seconds] : seconds_) std::printf(" %s %.0f", name, seconds / steps * 1e6);
    std::printf(" us\n");
  }

 private:
  double& Of(const char* name) {
    for (auto& [known, seconds] : seconds_) {
      if (std::strcmp(known, name) == 0) return seconds;
    }
    return seconds_.emplace_back(name, 0.0).second;
  }
  std::vector<std::pair<const char*, double>> seconds_;
};

double Total(const KernelTrace& trace) {
  uint64_t ticks = 0;
  for (const KernelTrace::Span& span : trace.spans) ticks += span.end - span.begin;
  return Seconds(ticks);
}

// Adds the time of Launch and Wait.
class TimedExecutor final : public Executor {
 public:
  explicit TimedExecutor(Executor& executor) : executor_(executor) {}
  const EngineLimits& limits() const override { return executor_.limits(); }
  absl::Status Launch(const StepPlan& plan) override {
    const uint64_t begin = Ticks();
    absl::Status status = executor_.Launch(plan);
    seconds += Seconds(Ticks() - begin);
    return status;
  }
  absl::Status Wait(StepId step, StepResult* result) override {
    const uint64_t begin = Ticks();
    absl::Status status = executor_.Wait(step, result);
    seconds += Seconds(Ticks() - begin);
    return status;
  }
  int max_in_flight() const override { return executor_.max_in_flight(); }
  double seconds = 0;

 private:
  Executor& executor_;
};

struct Arguments {
  EngineOptions engine;
  int context = 128;
  std::vector<int> batches = {1, 16, 64};
  int prefill = 512;
  int steps = 24;
  double read_gb_s = 0, amx_tflop_s = 0;  // 0: measure
};

bool Parse(int argc, char** argv, Arguments* out) {
  if (argc < 2) return false;
  out->engine.model_dir = argv[1];
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    if (flag == "--weights") {
      out->engine.int8_weights = value == "int8";
    } else if (flag == "--threads") {
      out->engine.num_threads = std::atoi(value.c_str());
    } else if (flag == "--context") {
      out->context = std::max(1, std::atoi(value.c_str()));
    } else if (flag == "--prefill") {
      out->prefill = std::atoi(value.c_str());
    } else if (flag == "--steps") {
      out->steps = std::max(1, std::atoi(value.c_str()));
    } else if (flag == "--batches") {
      out->batches.clear();
      for (const char* p = value.c_str(); p != nullptr && *p != 0;
           p = std::strchr(p, ',') ? std::strchr(p, ',') + 1 : nullptr) {
        out->batches.push_back(std::atoi(p));
      }
    } else if (flag == "--limits") {
      if (std::sscanf(value.c_str(), "%lf,%lf", &out->read_gb_s, &out->amx_tflop_s) != 2) return false;
    } else {
      return false;
    }
  }
  return argc % 2 == 0;
}

double ResidentMiB() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmRSS:", 0) == 0) return std::atof(line.c_str() + 6) / 1024;
  }
  return 0;
}

class Bench {
 public:
  explicit Bench(const Arguments& arguments) : arguments_(arguments) {}
  int Run();

 private:
  void Limits();
  bool Load();
  void Decode(int batch);
  void Prefill();
  std::vector<TokenId> Prompt(int length);

  const Arguments arguments_;
  double read_bytes_s_ = 0, amx_flop_s_ = 0;
  std::unique_ptr<ThreadPool> limits_pool_;
  KernelTrace trace_;
  EnginePlan plan_;
  std::unique_ptr<ModelExecutor> engine_;
  RandomStream random_{1};
};

void Bench::Limits() {
  read_bytes_s_ = arguments_.read_gb_s * 1e9;
  amx_flop_s_ = arguments_.amx_tflop_s * 1e12;
  const int threads = arguments_.engine.num_threads;
  limits_pool_ = std::make_unique<ThreadPool>(threads > 0 ? threads : DefaultCpuThreads());
  if (read_bytes_s_ == 0) {
    read_bytes_s_ = MeasureReadBandwidth(*limits_pool_);
    amx_flop_s_ = MeasureAmxPeak(*limits_pool_);
  }
  std::printf("limits: read %.1f GB/s, AMX %.2f TFLOP/s\n", read_bytes_s_ / 1e9, amx_flop_s_ / 1e12);
}

bool Bench::Load() {
  EngineOptions options = arguments_.engine;
  const int most = std::max(1, *std::max_element(arguments_.batches.begin(), arguments_.batches.end()));
  options.max_num_seqs = std::min(most, 512);
  options.max_step_tokens = std::max({options.max_step_tokens, arguments_.prefill, options.max_num_seqs});
  options.kv_cache_tokens = int64_t{16} * 2 * most * ((arguments_.context + 2 * arguments_.steps) / 16 + 2) +
                            2 * arguments_.prefill;
  const absl::StatusOr<EnginePlan> plan = PlanEngine(options);
  if (!plan.ok()) return std::fprintf(stderr, "%s\n", plan.status().ToString().c_str()), false;
  plan_ = *plan;
  const double begin = ClockSeconds();
  trace_.spans.reserve(4096);
  auto engine = LoadEngine(options, NewCpuBackend(plan_.num_threads, &trace_));
  if (!engine.ok()) return std::fprintf(stderr, "%s\n", engine.status().ToString().c_str()), false;
  engine_ = *std::move(engine);
  std::printf("%sload %.2f s, weights %.1f MiB (plan %.1f), resident %.1f MiB\n", plan_.ToString().c_str(),
              ClockSeconds() - begin, static_cast<double>(engine_->decoder().weight_bytes()) / (1 << 20),
              static_cast<double>(plan_.memory.weight_bytes) / (1 << 20), ResidentMiB());
  return true;
}

std::vector<TokenId> Bench::Prompt(int length) {
  std::vector<TokenId> prompt(static_cast<size_t>(length));
  for (TokenId& id : prompt)
    id = static_cast<TokenId>(random_.Below(static_cast<uint64_t>(plan_.limits.vocab_size)));
  return prompt;
}

void Bench::Decode(int batch) {
  TimedExecutor timed(*engine_);
  testing::PlanDriver driver(timed);
  std::vector<std::pair<int, int32_t>> work;
  for (int i = 0; i < batch; ++i) {
    work.emplace_back(driver.Add(Prompt(arguments_.context), 1 << 20, testing::Greedy()), arguments_.context);
  }
  for (size_t i = 0; i < work.size(); ++i) {
    if (!driver.Step({work[i]}).ok()) std::abort();
    work[i].second = 1;
  }
  for (int i = 0; i < 2; ++i) {
    if (!driver.Step(work).ok()) std::abort();
  }
  std::vector<double> steps, hosts;
  KernelTimes kernels;
  for (int i = 0; i < arguments_.steps; ++i) {
    trace_.spans.clear();
    timed.seconds = 0;
    if (!driver.Step(work).ok()) std::abort();
    steps.push_back(timed.seconds);
    hosts.push_back(timed.seconds - Total(trace_));
    kernels.Add(trace_);
  }
  std::sort(steps.begin(), steps.end());
  std::sort(hosts.begin(), hosts.end());
  const double median = steps[steps.size() / 2];
  // An untied embedding table is read a row at a time; a tied one is the head.
  const double table = plan_.model.tie_embeddings
                           ? 0
                           : static_cast<double>(plan_.model.vocab_size * plan_.model.hidden_size) *
                                 static_cast<double>(SizeOf(plan_.dtype));
  const double tokens = arguments_.context + 3 + arguments_.steps / 2.0;
  const double bytes = static_cast<double>(engine_->decoder().weight_bytes()) - table +
                       batch * tokens * static_cast<double>(plan_.memory.kv_block_bytes) / 16;
  std::printf(
      "decode batch %3d context %d: %8.1f tokens/s, step %.2f ms (best %.2f), %.2f of read bandwidth, host "
      "%.0f us (best %.0f)\n",
      batch, arguments_.context, batch / median, median * 1e3, steps[0] * 1e3, bytes / median / read_bytes_s_,
      hosts[hosts.size() / 2] * 1e6, hosts[0] * 1e6);
  kernels.Print(arguments_.steps);
  for (const auto& [handle, count] : work) driver.Release(handle);
  if (!driver.Step({}).ok()) std::abort();
}

void Bench::Prefill() {
  TimedExecutor timed(*engine_);
  testing::PlanDriver driver(timed);
  double best = 1e300;
  std::vector<double> all, peaks;
  KernelTimes of_best;
  for (int i = 0; i < 9; ++i) {
    const int handle = driver.Add(Prompt(arguments_.prefill), 1, testing::Greedy());
    peaks.push_back(MeasureAmxPeak(*limits_pool_, 1));
    trace_.spans.clear();
    timed.seconds = 0;
    if (!driver.Step({{handle, arguments_.prefill}}).ok()) std::abort();
    if (timed.seconds < best) {
      best = timed.seconds;
      of_best = {};
      of_best.Add(trace_);
    }
    all.push_back(timed.seconds);
    driver.Release(handle);
  }
  std::sort(all.begin(), all.end());
  std::sort(peaks.begin(), peaks.end());
  const double median = all[all.size() / 2], peak = peaks[peaks.size() / 2];
  const ModelConfig& m = plan_.model;
  const double matrices =
      static_cast<double>(m.num_parameters() - m.vocab_size * m.hidden_size * (m.tie_embeddings ? 1 : 2));
  const double n = arguments_.prefill;
  const double flops = 2 * matrices * n + 2.0 * static_cast<double>(m.num_layers * m.q_size()) * n * n;
  std::printf(
      "prefill %d: %8.1f tokens/s, %.1f ms (best %.1f), %.2f TFLOP/s, %.2f of the AMX peak, %.2f of the peak "
      "beside each run (%.2f TFLOP/s)\n",
      arguments_.prefill, n / median, median * 1e3, best * 1e3, flops / median / 1e12,
      amx_flop_s_ > 0 ? flops / median / amx_flop_s_ : 0.0, peak > 0 ? flops / median / peak : 0.0,
      peak / 1e12);
  of_best.Print(1);
}

int Bench::Run() {
  Limits();
  if (!Load()) return 2;
  for (const int batch : arguments_.batches) Decode(batch);
  if (arguments_.prefill > 0) Prefill();
  const double kv = static_cast<double>(plan_.memory.kv_bytes) / (1 << 20);
  const double weights = static_cast<double>(engine_->decoder().weight_bytes()) / (1 << 20);
  std::printf("resident %.1f MiB, limit 1.15 x (weights %.1f + kv %.1f) + 200 MB = %.1f MiB\n", ResidentMiB(),
              weights, kv, 1.15 * (weights + kv) + 200e6 / (1 << 20));
  return 0;
}

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) {
  orrery::Arguments arguments;
  if (!orrery::Parse(argc, argv, &arguments)) {
    std::fprintf(stderr, "usage: see the head of tests/bench/engine_bench.cc\n");
    return 2;
  }
  return orrery::Bench(arguments).Run();
}
