// Where to cut a row of values so that a number, or a sum, of the largest is kept, without sorting the row:
// passes that narrow the candidates around the cut, each a vector scan, a few in all. Internal to
// kernels/cpu.
#ifndef ORRERY_KERNELS_CPU_SAMPLE_SELECT_H_
#define ORRERY_KERNELS_CPU_SAMPLE_SELECT_H_

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cpu/vector_kernels.h"

namespace orrery {

// Keeps every value above `least` and the first `ties` of the `present` values equal to it.
struct Cut {
  float least = -std::numeric_limits<float>::infinity();
  int64_t ties = std::numeric_limits<int64_t>::max();
  int64_t present = 0;
};

inline float NextAbove(float x) { return std::nextafter(x, std::numeric_limits<float>::infinity()); }

// The k largest, k in [1, n]. candidates: room for n + 16; may be `values`, which it overwrites.
Cut CutAtCount(const VectorKernels& kernels, const float* values, int64_t n, int64_t k, float* candidates);

// The fewest of the largest whose sum reaches `sum`, in (0, total]; values >= 0, `total` about their sum. All
// of them when rounding keeps them below.
Cut CutAtSum(const VectorKernels& kernels, const float* values, int64_t n, double sum, double total,
             float* candidates);

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_SAMPLE_SELECT_H_
