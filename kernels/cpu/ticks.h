// A clock for measuring kernels: the processor's own counter where it has one that counts time.
#ifndef ORRERY_KERNELS_CPU_TICKS_H_
#define ORRERY_KERNELS_CPU_TICKS_H_

#include <cstdint>

#if defined(__x86_64__)
#include <x86intrin.h>
#else
#include <chrono>
#endif

namespace orrery {

// Nothing before it is still under way, nothing behind it has begun.
inline uint64_t Ticks() {
#if defined(__x86_64__)
  _mm_lfence();
  const uint64_t ticks = __rdtsc();
  _mm_lfence();
  return ticks;
#else
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
#endif
}

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_TICKS_H_
