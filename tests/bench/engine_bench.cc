// The engine alone, without scheduler and server: decode at several batch sizes and prefill, beside the read
// bandwidth and the tile peak of this machine measured in the same run; where the time goes by operation;
// load time and memory.
//
//   engine_bench MODEL_DIR [--weights native|int8] [--threads N] [--context N] [--batches 1,16,64]
//                [--prefill N] [--steps N] [--limits READ_GB_S,AMX_TFLOP_S] [--clock wall|cpu]
//
// Host time is what a step takes outside the backend's operations: checks, gathering, bookkeeping; without
// what timing the operations takes.

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "engine/backend_cpu.h"
#include "engine/cpu_engine.h"
#include "scheduler/base/random.h"
#include "tests/bench/machine_limits.h"
#include "tests/engine/plan_driver.h"

namespace orrery {
namespace {

// --clock cpu: the thread's own time, for comparisons with --threads 1 on a machine that others use too.
clockid_t bench_clock = CLOCK_MONOTONIC;

double ClockSeconds() {
  timespec now{};
  clock_gettime(bench_clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The wall clock by the processor's counter: more than two hundred operations of a step are timed one by one,
// and what the system's clock takes itself, behind caches full of weights, would be counted as host time.
#if defined(__x86_64__)
double SecondsPerTick() {
  const double begin = ClockSeconds();
  const uint64_t ticks = __rdtsc();
  while (ClockSeconds() - begin < 0.05) {
  }
  return (ClockSeconds() - begin) / static_cast<double>(__rdtsc() - ticks);
}

double Seconds() {
  static const double seconds_per_tick = SecondsPerTick();
  if (bench_clock != CLOCK_MONOTONIC) return ClockSeconds();
  return static_cast<double>(__rdtsc()) * seconds_per_tick;
}
#else
double Seconds() { return ClockSeconds(); }
#endif

enum Op { kBegin, kEmbed, kNorm, kMatMul, kHead, kRope, kAttention, kGather, kSample, kNumOps };
constexpr std::array<const char*, kNumOps> kOpNames = {"begin", "embed",     "norm",   "matmul", "head",
                                                       "rope",  "attention", "gather", "sample"};
struct OpTimes {
  std::array<double, kNumOps> seconds{};
  double total() const {
    double sum = 0;
    for (const double s : seconds) sum += s;
    return sum;
  }
};

// Passes every call on and keeps the time each operation took.
class TimedBackend final : public Backend {
 public:
  TimedBackend(std::unique_ptr<Backend> backend, OpTimes& times)
      : backend_(std::move(backend)), times_(times) {}

  DType ActivationDtype(DType weights) const override { return backend_->ActivationDtype(weights); }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) override {
    return backend_->Allocate(bytes);
  }
  absl::Status Upload(const void* host, size_t bytes, void* device) override {
    return backend_->Upload(host, bytes, device);
  }
  absl::StatusOr<std::unique_ptr<Matrix>> Pack(absl::Span<const WeightView> parts, DType dtype,
                                               MatrixKind kind) override {
    return backend_->Pack(parts, dtype, kind);
  }
  int64_t KvBlockBytes(const AttentionSpec& spec) const override { return backend_->KvBlockBytes(spec); }
  absl::Status Prepare(const BackendLimits& limits) override {
    vocab_ = limits.vocab_size;
    return backend_->Prepare(limits);
  }
  void BeginStep(const StepInput& input) override {
    Time(kBegin, [&] { backend_->BeginStep(input); });
  }
  void Copy(void* to, const void* from, size_t bytes) override { backend_->Copy(to, from, bytes); }
  void Embed(const Tensor& out, const Matrix& table) override {
    Time(kEmbed, [&] { backend_->Embed(out, table); });
  }
  void Embed(const Tensor& out, const Tensor& table) override {
    Time(kEmbed, [&] { backend_->Embed(out, table); });
  }
  void RmsNorm(const Tensor& out, const Tensor& in, const float* gain, float eps) override {
    Time(kNorm, [&] { backend_->RmsNorm(out, in, gain, eps); });
  }
  void MatMul(const Tensor& out, const Tensor& in, const Matrix& weight, const float* bias,
              const float* residual) override {
    Time(out.cols == vocab_ ? kHead : kMatMul, [&] { backend_->MatMul(out, in, weight, bias, residual); });
  }
  void RopeAndWriteKv(const Tensor& qkv, const float* q_gain, const float* k_gain, float eps,
                      const KvLayer& layer) override {
    Time(kRope, [&] { backend_->RopeAndWriteKv(qkv, q_gain, k_gain, eps, layer); });
  }
  void PagedAttention(const Tensor& out, const Tensor& qkv, const KvLayer& layer) override {
    Time(kAttention, [&] { backend_->PagedAttention(out, qkv, layer); });
  }
  void GatherRows(const Tensor& out, const Tensor& in, absl::Span<const int32_t> rows) override {
    Time(kGather, [&] { backend_->GatherRows(out, in, rows); });
  }
  void Sample(const Tensor& logits, absl::Span<const SampleArgs> args, SampleResult* results) override {
    Time(kSample, [&] { backend_->Sample(logits, args, results); });
  }
  absl::Status FinishStep() override { return backend_->FinishStep(); }

 private:
  template <typename F>
  void Time(Op op, F&& call) {
    const double begin = Seconds();
    call();
    times_.seconds[op] += Seconds() - begin;
  }

  std::unique_ptr<Backend> backend_;
  OpTimes& times_;
  int64_t vocab_ = 0;
};

// Adds the time of Launch and Wait.
class TimedExecutor final : public Executor {
 public:
  explicit TimedExecutor(Executor& executor) : executor_(executor) {}
  const EngineLimits& limits() const override { return executor_.limits(); }
  absl::Status Launch(const StepPlan& plan) override {
    const double begin = Seconds();
    absl::Status status = executor_.Launch(plan);
    seconds += Seconds() - begin;
    return status;
  }
  absl::Status Wait(StepId step, StepResult* result) override {
    const double begin = Seconds();
    absl::Status status = executor_.Wait(step, result);
    seconds += Seconds() - begin;
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
    } else if (flag == "--clock") {
      if (value == "cpu") bench_clock = CLOCK_THREAD_CPUTIME_ID;
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
  void PrintOps(const OpTimes& times, double steps) const;
  std::vector<TokenId> Prompt(int length);

  const Arguments arguments_;
  double read_bytes_s_ = 0, amx_flop_s_ = 0;
  std::unique_ptr<ThreadPool> limits_pool_;
  OpTimes times_, outer_times_;
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
  const double begin = Seconds();
  // Timed twice: what the outer layer sees beyond the inner one is what one layer of timing takes itself,
  // with every line of it fetched from behind a cache full of weights.
  auto timed = std::make_unique<TimedBackend>(NewCpuBackend(plan_.num_threads), times_);
  auto engine = LoadEngine(options, std::make_unique<TimedBackend>(std::move(timed), outer_times_));
  if (!engine.ok()) return std::fprintf(stderr, "%s\n", engine.status().ToString().c_str()), false;
  engine_ = *std::move(engine);
  std::printf("%sload %.2f s, weights %.1f MiB (plan %.1f), resident %.1f MiB\n", plan_.ToString().c_str(),
              Seconds() - begin, static_cast<double>(engine_->decoder().weight_bytes()) / (1 << 20),
              static_cast<double>(plan_.memory.weight_bytes) / (1 << 20), ResidentMiB());
  return true;
}

std::vector<TokenId> Bench::Prompt(int length) {
  std::vector<TokenId> prompt(static_cast<size_t>(length));
  for (TokenId& id : prompt)
    id = static_cast<TokenId>(random_.Below(static_cast<uint64_t>(plan_.limits.vocab_size)));
  return prompt;
}

void Bench::PrintOps(const OpTimes& times, double steps) const {
  std::printf("   ");
  for (int op = 0; op < kNumOps; ++op) std::printf(" %s %.0f", kOpNames[op], times.seconds[op] / steps * 1e6);
  std::printf(" us\n");
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
  std::vector<double> steps, hosts, timings;
  OpTimes sum;
  for (int i = 0; i < arguments_.steps; ++i) {
    times_ = outer_times_ = {};
    timed.seconds = 0;
    if (!driver.Step(work).ok()) std::abort();
    steps.push_back(timed.seconds);
    const double timing = outer_times_.total() - times_.total();
    timings.push_back(timing);
    hosts.push_back(timed.seconds - outer_times_.total() - timing);
    for (int op = 0; op < kNumOps; ++op) sum.seconds[op] += times_.seconds[op];
  }
  std::sort(steps.begin(), steps.end());
  std::sort(hosts.begin(), hosts.end());
  std::sort(timings.begin(), timings.end());
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
      "%.0f us (best %.0f; timing took another %.0f)\n",
      batch, arguments_.context, batch / median, median * 1e3, steps[0] * 1e3, bytes / median / read_bytes_s_,
      hosts[hosts.size() / 2] * 1e6, hosts[0] * 1e6, timings[timings.size() / 2] * 1e6);
  PrintOps(sum, arguments_.steps);
  for (const auto& [handle, count] : work) driver.Release(handle);
  if (!driver.Step({}).ok()) std::abort();
}

void Bench::Prefill() {
  TimedExecutor timed(*engine_);
  testing::PlanDriver driver(timed);
  double best = 1e300;
  std::vector<double> all, peaks;
  OpTimes of_best;
  for (int i = 0; i < 9; ++i) {
    const int handle = driver.Add(Prompt(arguments_.prefill), 1, testing::Greedy());
    peaks.push_back(MeasureAmxPeak(*limits_pool_, 1));
    times_ = {};
    timed.seconds = 0;
    if (!driver.Step({{handle, arguments_.prefill}}).ok()) std::abort();
    if (timed.seconds < best) of_best = times_;
    best = std::min(best, timed.seconds);
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
  PrintOps(of_best, 1);
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
