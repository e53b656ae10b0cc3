#include "kernels/cpu/cpu_features.h"

#include <algorithm>
#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace orrery {
namespace {

constexpr std::string_view kNames[] = {"scalar", "avx2", "avx512", "amx"};

#if defined(__x86_64__)
bool AmxTileDataPermitted() {
#if defined(__linux__)
  constexpr long kArchReqXcompPerm = 0x1023;
  constexpr long kXfeatureTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
#else
  return false;
#endif
}

bool HasAmx() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  const bool tiles = (edx >> 24) & 1u;
  const bool bf16 = (edx >> 22) & 1u;
  const bool i8 = (edx >> 25) & 1u;
  return tiles && bf16 && i8 && AmxTileDataPermitted();
}

Isa Detect() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) {
    return Isa::kScalar;
  }
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return Isa::kAvx2;
  }
  const bool words = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi");
  return words && HasAmx() ? Isa::kAmx : Isa::kAvx512;
}
#else
Isa Detect() { return Isa::kScalar; }
#endif

std::atomic<Isa> g_limit{Isa::kAmx};

}  // namespace

std::string_view NameOf(Isa isa) { return kNames[static_cast<int>(isa)]; }

std::optional<Isa> IsaFromName(std::string_view name) {
  for (int i = 0; i < 4; ++i) {
    if (kNames[i] == name) return static_cast<Isa>(i);
  }
  return std::nullopt;
}

Isa DetectedIsa() {
  static const Isa detected = Detect();
  return detected;
}

Isa ActiveIsa() { return std::min(DetectedIsa(), g_limit.load(std::memory_order_relaxed)); }

void LimitIsa(Isa limit) { g_limit.store(limit, std::memory_order_relaxed); }

}  // namespace orrery
