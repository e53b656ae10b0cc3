#include "tests/bench/machine_limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <new>

#include "kernels/cpu/cpu_features.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace orrery {
namespace {

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

#if defined(__x86_64__)
[[gnu::target("avx512f")]] uint64_t ReadAvx512(const std::byte* data, size_t bytes) {
  __m512i sum[4] = {};
  for (size_t i = 0; i < bytes; i += 256) {
    for (size_t j = 0; j < 4; ++j) {
      _mm_prefetch(reinterpret_cast<const char*>(data + i + j * 64 + 8192), _MM_HINT_T1);
      sum[j] = _mm512_xor_si512(sum[j], _mm512_load_si512(data + i + j * 64));
    }
  }
  const __m512i all = _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]), _mm512_xor_si512(sum[2], sum[3]));
  alignas(64) uint64_t words[8];
  _mm512_store_si512(words, all);
  return words[0] ^ words[7];
}

[[gnu::target("amx-tile,amx-bf16")]] double AmxFlops(int64_t loops) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  asm volatile("" : : "m"(config));  // the intrinsic does not tell the compiler that it reads all of it
  _tile_loadconfig(&config);
  // Not zeros: those let the unit run cooler, and so faster, than any product can.
  alignas(64) uint16_t tile[16 * 32];
  for (size_t i = 0; i < std::size(tile); ++i) tile[i] = static_cast<uint16_t>(0x3f80 | (i * 37 % 128));
  asm volatile("" : : "m"(tile));
  _tile_loadd(4, tile, 64);
  _tile_loadd(5, tile, 64);
  _tile_loadd(6, tile, 64);
  _tile_loadd(7, tile, 64);
  for (int64_t i = 0; i < loops; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return static_cast<double>(loops) * 4 * 2 * 16 * 16 * 32;
}

[[gnu::target("avx512f")]] double FmaFlops(int64_t loops) {
  __m512 sum[12];
  for (__m512& s : sum) s = _mm512_set1_ps(1.0f);
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f);
  for (int64_t i = 0; i < loops; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) sum[j] = _mm512_fmadd_ps(sum[j], a, b);
  }
  float total = 0;  // its use keeps the loop alive; it stays positive
  for (const __m512& s : sum) total += s[0];
  return total > 0 ? static_cast<double>(loops) * 12 * 2 * 16 : 0;
}
#endif

uint64_t ReadPlain(const std::byte* data, size_t bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i < bytes; i += 8) {
    uint64_t value;
    std::memcpy(&value, data + i, 8);
    sum ^= value;
  }
  return sum;
}

// Work per second of `work`, which returns how much one thread did, best of `rounds`.
double BestRate(ThreadPool& pool, int rounds, FunctionRef<double()> work) {
  double best = 0;
  for (int round = 0; round < rounds; ++round) {
    std::atomic<int64_t> done{0};
    const double begin = Seconds();
    pool.Run([&](int, int) { done += static_cast<int64_t>(work()); });
    best = std::max(best, static_cast<double>(done) / (Seconds() - begin));
  }
  return best;
}

}  // namespace

double MeasureReadBandwidth(ThreadPool& pool, int rounds) {
  constexpr size_t kBytes = size_t{1} << 30, kPiece = size_t{1} << 20, kPage = size_t{2} << 20;
  const auto free_buffer = [](std::byte* data) { ::operator delete[](data, std::align_val_t{kPage}); };
  std::unique_ptr<std::byte, decltype(free_buffer)> buffer(
      static_cast<std::byte*>(::operator new[](kBytes, std::align_val_t{kPage}, std::nothrow)), free_buffer);
  if (buffer == nullptr) return 0;
#if defined(__linux__)
  madvise(buffer.get(), kBytes, MADV_HUGEPAGE);
#endif
  std::memset(buffer.get(), 1, kBytes);
  std::atomic<uint64_t> sink{0};
  double best = 0;
  for (int round = 0; round < rounds; ++round) {
    const double begin = Seconds();
    pool.ParallelFor(kBytes / kPiece, 1, [&](int64_t piece, int64_t, int) {
      const std::byte* data = buffer.get() + static_cast<size_t>(piece) * kPiece;
#if defined(__x86_64__)
      sink += DetectedIsa() >= Isa::kAvx512 ? ReadAvx512(data, kPiece) : ReadPlain(data, kPiece);
#else
      sink += ReadPlain(data, kPiece);
#endif
    });
    best = std::max(best, static_cast<double>(kBytes) / (Seconds() - begin));
  }
  return best;
}

double MeasureAmxPeak(ThreadPool& pool, int rounds) {
#if defined(__x86_64__)
  if (DetectedIsa() < Isa::kAmx) return 0;
  return BestRate(pool, rounds, [] { return AmxFlops(20000); });
#else
  return 0;
#endif
}

double MeasureF32Peak(ThreadPool& pool, int rounds) {
#if defined(__x86_64__)
  if (DetectedIsa() < Isa::kAvx512) return 0;
  return BestRate(pool, rounds, [] { return FmaFlops(1000000); });
#else
  return 0;
#endif
}

}  // namespace orrery
