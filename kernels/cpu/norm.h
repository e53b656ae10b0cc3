// Root-mean-square normalisation: out = x / sqrt(mean(x^2) + eps) * gain, in f32, one row at a time. A row's
// result depends on that row alone. Outputs are f32 or, for a matrix product that takes it, bf16.
#ifndef ORRERY_KERNELS_CPU_NORM_H_
#define ORRERY_KERNELS_CPU_NORM_H_

#include <cstdint>

#include "kernels/cpu/thread_pool.h"
#include "kernels/dtype.h"

namespace orrery {

// Where an operation leaves its rows, packed, in the element type its consumer wants: f32 or bf16.
struct RowsOut {
  void* data = nullptr;
  DType dtype = DType::kF32;
};

struct RmsGain {
  const float* gain = nullptr;  // [hidden]
  float eps = 1e-6f;
};

// x [rows, hidden] -> out [rows, hidden]. An f32 out may be x itself.
void RmsNorm(ThreadPool& pool, const float* x, int64_t rows, int64_t hidden, RmsGain norm, RowsOut out);

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_NORM_H_
