#ifndef ORRERY_TESTS_BENCH_MACHINE_LIMITS_H_
#define ORRERY_TESTS_BENCH_MACHINE_LIMITS_H_

// What this machine can do at best, measured in the same run as the benchmark that quotes it.

#include <cstddef>

#include "kernels/cpu/thread_pool.h"

namespace orrery {

// Bytes per second of all threads of the pool reading a 1 GiB buffer front to back, best of `rounds`.
double MeasureReadBandwidth(ThreadPool& pool, int rounds = 8);

// FLOP per second of bf16 tile products on operands that never leave the tiles, all threads, best of
// `rounds`; 0 without AMX. A core that is short of power runs tiles at less than half of its best rate for
// seconds on end: one round beside each measurement tells what was possible at that moment.
double MeasureAmxPeak(ThreadPool& pool, int rounds = 8);

// FLOP per second of f32 fused multiply-adds on registers, all threads, best of `rounds`; 0 without AVX-512.
double MeasureF32Peak(ThreadPool& pool, int rounds = 8);

}  // namespace orrery

#endif  // ORRERY_TESTS_BENCH_MACHINE_LIMITS_H_
