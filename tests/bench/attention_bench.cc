// Paged attention beside the limits of the machine: decode in GB/s of keys and values against the measured
// read bandwidth, prefill in TFLOP/s (of the causal half) against the measured AMX peak; the fused rotation
// and KV write; sampling. Decode walks over enough layers that nothing is in a cache when its turn comes
// again.
//
//   attention_bench [--threads N] [--isa NAME] [--dtype bf16|f16|f32] [--only decode|prefill|rope|sample]
//                   [--clock wall|cpu]
//
// --clock cpu measures the CPU time of one thread: for machines that others use at the same time.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/sample.h"
#include "tests/bench/machine_limits.h"

namespace orrery {
namespace {

struct Options {
  int threads = static_cast<int>(std::thread::hardware_concurrency());
  DType dtype = DType::kBF16;
  std::string only;
  bool Wants(const char* part) const { return only.empty() || only == part; }
};

struct Model {
  const char* name;
  int q_heads, kv_heads, head_dim, layers;
};
constexpr Model kModels[] = {{"Qwen3-0.6B", 16, 8, 128, 28}, {"Llama-3.2-1B", 32, 8, 64, 16}};

bool g_cpu_clock = false;

double Seconds() {
  timespec now;
  if (g_cpu_clock && clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) == 0) {
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Times {
  double median_s, best_s;
};

// At least 7 runs and 0.3 s.
template <typename F>
Times Measure(F&& run) {
  std::vector<double> times;
  run();
  for (double total = 0; times.size() < 7 || total < 0.3;) {
    const double begin = Seconds();
    run();
    times.push_back(Seconds() - begin);
    total += times.back();
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times[0]};
}

// A pool of some layers, filled by rotation of random rows, and the tables of `batch` sequences.
class Fixture {
 public:
  Fixture(const Model& model, DType dtype, int batch, int context, int layers, ThreadPool& threads)
      : shape_{model.q_heads, model.kv_heads, model.head_dim, dtype}, layers_(layers), threads_(threads) {
    blocks_each_ = (context + kKvBlockTokens - 1) / kKvBlockTokens;
    blocks_ = blocks_each_ * batch;
    layer_bytes_ = KvBlockBytes(shape_) * blocks_;
    memory_.reset(
        static_cast<uint8_t*>(std::aligned_alloc(2 << 20, (layer_bytes_ * layers >> 21 << 21) + (4 << 20))));
#if defined(__linux__)
    madvise(memory_.get(), static_cast<size_t>(layer_bytes_) * layers, MADV_HUGEPAGE);
#endif
    FillPool();
    for (int b = 0; b < blocks_; ++b) table_.push_back(b);
    std::shuffle(table_.begin(), table_.end(), std::mt19937(3));
  }

  // The step in which every sequence adds rows position .. position + count.
  std::unique_ptr<AttentionPlan> Plan(int batch, int position, int count) {
    auto plan = std::make_unique<AttentionPlan>(shape_, batch * count, batch, threads_.num_threads());
    std::vector<KvSlice> slices;
    for (int i = 0; i < batch; ++i)
      slices.push_back({i * count, count, position, table_.data() + i * blocks_each_});
    plan->Build(slices.data(), batch);
    return plan;
  }

  // All layers of a block lie together, as in the engine's pool.
  KvPoolView layer(int index) const {
    const int64_t bytes = KvBlockBytes(shape_);
    return {memory_.get() + bytes * index, bytes * layers_};
  }
  const AttentionShape& shape() const { return shape_; }
  int layers() const { return layers_; }

 private:
  struct Free {
    void operator()(uint8_t* data) const { std::free(data); }
  };
  // Small random numbers of the pool's type, whatever their place.
  void FillPool() {
    std::mt19937 random(1);
    std::vector<uint8_t> values(4096 * SizeOf(shape_.kv_dtype));
    for (int i = 0; i < 4096; ++i) {
      const float x = static_cast<float>(random() % 2001) / 1000.0f - 1.0f;
      const uint16_t bits = shape_.kv_dtype == DType::kBF16 ? BF16FromF32(x) : F16FromF32(x);
      if (shape_.kv_dtype == DType::kF32) {
        std::memcpy(&values[i * 4], &x, 4);
      } else {
        std::memcpy(&values[i * 2], &bits, 2);
      }
    }
    const int64_t bytes = layer_bytes_ * layers_;
    for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(values.size())) {
      std::memcpy(memory_.get() + at, values.data(), std::min<int64_t>(bytes - at, values.size()));
    }
  }

  AttentionShape shape_;
  int layers_;
  ThreadPool& threads_;
  int blocks_each_, blocks_;
  int64_t layer_bytes_;
  std::unique_ptr<uint8_t, Free> memory_;
  std::vector<int32_t> table_;
};

std::vector<float> RandomRows(int64_t n) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> rows(n);
  for (float& x : rows) x = normal(random);
  return rows;
}

void Decode(const Options& options, ThreadPool& threads) {
  const double limit = MeasureReadBandwidth(threads);
  std::printf("decode attention (limit %.1f GB/s read)\n", limit / 1e9);
  for (const Model& model : kModels) {
    for (int batch : {1, 16}) {
      for (int context : {128, 2048, 8192}) {
        const int64_t layer_bytes = int64_t{2} * model.kv_heads * model.head_dim * context * batch *
                                    static_cast<int64_t>(SizeOf(options.dtype));
        const int layers =
            static_cast<int>(std::clamp<int64_t>((400 << 20) / layer_bytes, 1, 4 * model.layers));
        Fixture fixture(model, options.dtype, batch, context, layers, threads);
        const auto plan = fixture.Plan(batch, context - 1, 1);
        const std::vector<float> qkv = RandomRows(batch * fixture.shape().qkv_stride());
        std::vector<float> out(batch * model.q_heads * model.head_dim);
        const Times times = Measure([&] {
          for (int layer = 0; layer < layers; ++layer) {
            PagedAttention(threads, *plan, qkv.data(), fixture.layer(layer), 0.1f, {out.data()});
          }
        });
        const double bytes = static_cast<double>(layer_bytes) * layers;
        std::printf(
            "  %-12s batch %2d context %4d: %8.1f us per layer, %5.1f GB/s (best %5.1f), %.2f of limit\n",
            model.name, batch, context, times.median_s / layers * 1e6, bytes / times.median_s / 1e9,
            bytes / times.best_s / 1e9, bytes / times.best_s / limit);
      }
    }
  }
}

void Prefill(const Options& options, ThreadPool& threads) {
  const double limit = MeasureAmxPeak(threads);
  std::printf("prefill attention (limit %.2f TFLOP/s AMX)\n", limit / 1e12);
  for (const Model& model : kModels) {
    for (int prompt : {128, 512, 2048}) {
      Fixture fixture(model, options.dtype, 1, prompt, 1, threads);
      const auto plan = fixture.Plan(1, 0, prompt);
      const std::vector<float> qkv = RandomRows(prompt * fixture.shape().qkv_stride());
      std::vector<float> out(int64_t{prompt} * model.q_heads * model.head_dim);
      const Times times =
          Measure([&] { PagedAttention(threads, *plan, qkv.data(), fixture.layer(0), 0.1f, {out.data()}); });
      const double flops = 2.0 * prompt * (prompt + 1) * model.q_heads * model.head_dim;
      std::printf("  %-12s prompt %4d: %8.1f us per layer, %6.3f TFLOP/s (best %6.3f), %.2f of limit\n",
                  model.name, prompt, times.median_s * 1e6, flops / times.median_s / 1e12,
                  flops / times.best_s / 1e12, flops / times.best_s / limit);
    }
  }
}

void Rope(const Options& options, ThreadPool& threads) {
  std::printf("norm of heads, rotation and KV write\n");
  for (const Model& model : kModels) {
    for (int rows : {1, 16, 512}) {
      Fixture fixture(model, options.dtype, 1, rows, 1, threads);
      const auto plan = fixture.Plan(1, 0, rows);
      std::vector<float> qkv = RandomRows(rows * fixture.shape().qkv_stride());
      const std::vector<float> gain(model.head_dim, 1.0f), inv_freq(model.head_dim / 2, 0.01f);
      std::vector<float> cos_sin(rows * model.head_dim);
      const auto angles = [&] {
        RopeAngles(threads, plan->positions(), rows, inv_freq.data(), model.head_dim / 2, cos_sin.data());
      };
      const Times angle_times = Measure(angles);
      const Times times = Measure([&] {
        RopeAndWriteKv(threads, {.shape = fixture.shape(),
                                 .qkv = qkv.data(),
                                 .rows = rows,
                                 .cos_sin = cos_sin.data(),
                                 .rotary_dim = model.head_dim,
                                 .q_gain = gain.data(),
                                 .k_gain = gain.data(),
                                 .kv_slots = plan->kv_slots(),
                                 .pool = fixture.layer(0)});
      });
      std::printf("  %-12s rows %3d: %7.2f us per layer (best %7.2f), angles %.2f us per step\n", model.name,
                  rows, times.median_s * 1e6, times.best_s * 1e6, angle_times.median_s * 1e6);
    }
  }
}

void Sample(ThreadPool& threads) {
  constexpr int32_t kVocab = 151936, kRows = 16;
  std::printf("sampling, vocabulary %d, %d rows, us per row on one thread\n", kVocab, kRows);
  struct Case {
    const char* name;
    SampleArgs args;
  };
  const Case cases[] = {{"greedy", {.temperature = 0.0f}},
                        {"temperature", {.temperature = 0.8f}},
                        {"top_p 0.95", {.temperature = 0.8f, .top_p = 0.95f}},
                        {"top_k 50", {.temperature = 0.8f, .top_k = 50}},
                        {"top_k 20, top_p 0.95", {.temperature = 0.6f, .top_k = 20, .top_p = 0.95f}},
                        {"greedy, 5 logprobs", {.temperature = 0.0f, .num_logprobs = 5}}};
  struct alignas(64) Line {
    uint8_t bytes[64];
  };
  std::vector<Line> scratch(SampleScratchBytes(kVocab) / 64 * threads.num_threads());
  for (float spread : {0.02f, 3.0f}) {
    std::vector<float> logits = RandomRows(int64_t{kRows} * kVocab);
    for (float& x : logits) x *= spread;
    for (const Case& c : cases) {
      std::vector<TokenLogprob> top(5 * kRows);
      std::vector<SampleArgs> args(kRows, c.args);
      std::vector<SampleResult> results(kRows);
      for (int r = 0; r < kRows; ++r) {
        args[r].uniform = (r + 0.5) / kRows;
        results[r].top = &top[5 * r];
      }
      const Times times = Measure([&] {
        SampleRows(threads, logits.data(), kVocab, kVocab, args.data(), kRows, scratch.data(),
                   results.data());
      });
      const double us = 1e6 * threads.num_threads() / kRows;
      std::printf("  spread %4.2f, %-22s %7.1f (best %7.1f)\n", spread, c.name, times.median_s * us,
                  times.best_s * us);
    }
  }
}

int Main(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    if (flag == "--threads") options.threads = std::max(1, std::atoi(value.c_str()));
    if (flag == "--isa") LimitIsa(IsaFromName(value).value_or(Isa::kAmx));
    if (flag == "--clock") g_cpu_clock = value == "cpu";
    if (flag == "--only") options.only = value;
    if (flag == "--dtype")
      options.dtype = value == "f32" ? DType::kF32 : value == "f16" ? DType::kF16 : DType::kBF16;
  }
  if (g_cpu_clock) options.threads = 1;
  ThreadPool threads(options.threads);
  std::printf("%s, %d threads, KV %s\n", std::string(NameOf(ActiveIsa())).c_str(), threads.num_threads(),
              std::string(NameOf(options.dtype)).c_str());
  if (options.Wants("decode")) Decode(options, threads);
  if (options.Wants("prefill")) Prefill(options, threads);
  if (options.Wants("rope")) Rope(options, threads);
  if (options.Wants("sample")) Sample(threads);
  return 0;
}

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) { return orrery::Main(argc, argv); }
