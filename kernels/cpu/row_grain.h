// How many rows of an elementwise operation a thread takes at a time. Internal to kernels/cpu.
#ifndef ORRERY_KERNELS_CPU_ROW_GRAIN_H_
#define ORRERY_KERNELS_CPU_ROW_GRAIN_H_

#include <algorithm>
#include <cstdint>

namespace orrery {

// About two microseconds of work, so that waking another thread pays.
constexpr int64_t RowGrain(int64_t elements_per_row) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, elements_per_row));
}

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_ROW_GRAIN_H_
