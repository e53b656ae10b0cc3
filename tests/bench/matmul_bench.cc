// Matrix products in the shapes of Llama-3.2-1B and Qwen3-0.6B beside the limits of the machine and, when
// built with it, oneDNN. Every product rotates through enough copies of its weight that none is in a cache
// when its turn comes again, as in a model.
//
//   matmul_bench [--dtype bf16|i8|f32|f16] [--threads N] [--shape KxN] [--rows R] [--isa NAME]

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/matmul.h"
#include "tests/bench/machine_limits.h"
#include "tests/bench/matmul_peer.h"

namespace orrery {
namespace {

struct Shape {
  int64_t k, n;
  bool gated = false;
};

constexpr Shape kShapes[] = {{2048, 8192},        {8192, 2048},   {2048, 2048}, {2048, 3072},
                             {2048, 16384, true}, {2048, 128256}, {1024, 4096}, {1024, 6144, true},
                             {3072, 1024},        {2048, 1024}};
constexpr int64_t kRows[] = {1, 4, 8, 16, 32, 64, 128, 512};

struct Options {
  DType dtype = DType::kBF16;
  int threads = static_cast<int>(std::thread::hardware_concurrency());
  int64_t k = 0, n = 0, rows = 0;
};

struct Limits {
  double read_bytes_s, flops_s;
};

struct Times {
  double median_s, best_s;
};

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// At least 9 runs and 0.1 s.
template <typename F>
Times Measure(F&& run) {
  std::vector<double> times;
  run();
  for (double total = 0; times.size() < 9 || total < 0.1;) {
    const double begin = Seconds();
    run();
    times.push_back(Seconds() - begin);
    total += times.back();
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front()};
}

void Print(const char* what, const Shape& shape, int64_t rows, const Times& times, double bytes,
           const Limits& limits) {
  const double flops = 2.0 * static_cast<double>(rows * shape.k * shape.n);
  std::printf(
      "%-8s %5ld x %-6ld%s rows %3ld  median %8.1f us  best %8.1f us  %6.2f GB/s (%.2f)  "
      "%6.3f TFLOP/s (%.2f)\n",
      what, static_cast<long>(shape.k), static_cast<long>(shape.n), shape.gated ? " gated" : "      ",
      static_cast<long>(rows), times.median_s * 1e6, times.best_s * 1e6, bytes / times.median_s / 1e9,
      bytes / times.median_s / limits.read_bytes_s, flops / times.median_s / 1e12,
      flops / times.median_s / limits.flops_s);
  std::fflush(stdout);
}

void BenchShape(ThreadPool& pool, const Options& options, const Shape& shape, const Limits& limits) {
  const DType stored =
      options.dtype == DType::kF32 || options.dtype == DType::kF16 ? options.dtype : DType::kBF16;
  std::vector<std::byte> source(static_cast<size_t>(shape.k * shape.n) * SizeOf(stored));
  uint32_t state = 1;
  for (int64_t i = 0; i < shape.k * shape.n; ++i) {
    state = state * 1664525u + 1013904223u;
    const float value = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-36f;
    const uint16_t half = stored == DType::kF16 ? F16FromF32(value) : BF16FromF32(value);
    std::memcpy(source.data() + static_cast<size_t>(i) * SizeOf(stored),
                stored == DType::kF32 ? static_cast<const void*>(&value) : &half, SizeOf(stored));
  }
  const MatrixSource piece{source.data(), stored, shape.n};
  std::vector<PackedMatrix> weights;
  const double begin = Seconds();
  size_t bytes = 0;
  do {
    auto packed = PackedMatrix::Pack(pool, std::span(&piece, 1), shape.k, options.dtype,
                                     shape.gated ? ColumnOrder::kGated : ColumnOrder::kStacked);
    if (!packed) std::exit(1);
    bytes += packed->bytes();
    weights.push_back(std::move(*packed));
  } while (bytes < (size_t{400} << 20));
  const double seconds = Seconds() - begin;
  std::printf("pack     %5ld x %-6ld %.2f GB/s of packed weights\n", static_cast<long>(shape.k),
              static_cast<long>(shape.n), static_cast<double>(bytes) / seconds / 1e9);

  const AlignedBuffer in = AlignedBuffer::Allocate(static_cast<size_t>(512 * shape.k) * 4);
  std::mt19937 random(1);
  for (int64_t i = 0; i < 512 * shape.k; ++i)
    in.as<float>()[i] = static_cast<float>(random() % 2001) / 1e3f - 1;
  const AlignedBuffer out = AlignedBuffer::Allocate(static_cast<size_t>(512 * shape.n) * 4);
  const AlignedBuffer scratch = AlignedBuffer::Allocate(MatMulScratchBytes(512, shape.k, pool.num_threads()));
  const auto peer =
      MakeMatMulPeer(source.data(), stored, options.dtype, shape.k, shape.n, pool.num_threads());
  for (int64_t rows : kRows) {
    if (options.rows != 0 && rows != options.rows) continue;
    size_t next = 0;
    const Times times = Measure([&] {
      const PackedMatrix& weight = weights[next++ % weights.size()];
      MatMul(pool, {in.data(), DType::kF32, rows, shape.k}, weight,
             {out.data(), DType::kF32, weight.out_columns()}, {}, scratch.data());
    });
    Print("ours", shape, rows, times, static_cast<double>(weights[0].bytes()), limits);
    if (peer != nullptr && peer->Prepare(rows)) {
      Print("oneDNN", shape, rows, Measure([&] { peer->Run(); }), static_cast<double>(weights[0].bytes()),
            limits);
    }
  }
}

int Main(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    if (flag == "--dtype") {
      for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kI8}) {
        if (NameOf(dtype) == value) options.dtype = dtype;
      }
    } else if (flag == "--threads") {
      options.threads = std::atoi(value.c_str());
    } else if (flag == "--rows") {
      options.rows = std::atoi(value.c_str());
    } else if (flag == "--isa" && IsaFromName(value)) {
      LimitIsa(*IsaFromName(value));
    } else if (flag == "--shape") {
      options.k = std::atoi(value.c_str());
      options.n = std::atoi(value.c_str() + value.find('x') + 1);
    } else {
      std::fprintf(stderr, "unknown flag or value: %s %s\n", argv[i], argv[i + 1]);
      return 2;
    }
  }
  ThreadPool pool(options.threads);
  Limits limits{MeasureReadBandwidth(pool), MeasureAmxPeak(pool)};
  const double f32 = MeasureF32Peak(pool);
  std::printf("%d threads, %s: read %.1f GB/s, bf16 tiles %.2f TFLOP/s, f32 %.2f TFLOP/s\n",
              pool.num_threads(), std::string(NameOf(ActiveIsa())).c_str(), limits.read_bytes_s / 1e9,
              limits.flops_s / 1e12, f32 / 1e12);
  const bool tiles = options.dtype == DType::kBF16 || options.dtype == DType::kI8;
  if (ActiveIsa() < Isa::kAmx || !tiles) limits.flops_s = f32;
  for (const Shape& shape : kShapes) {
    if (options.k != 0 && (shape.k != options.k || shape.n != options.n)) continue;
    BenchShape(pool, options, shape, limits);
  }
  return 0;
}

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) { return orrery::Main(argc, argv); }
