// Root-mean-square normalisation with the addition before it: x += delta; out = x / sqrt(mean(x^2) + eps) *
// gain, in f32. A row's result depends on that row alone.
#ifndef ORRERY_KERNELS_CUDA_RMS_NORM_H_
#define ORRERY_KERNELS_CUDA_RMS_NORM_H_

#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/dtype.h"

namespace orrery::cuda {

inline constexpr int32_t kMaxNormHidden = 16384;

// Matrices are packed and aligned to 16 bytes; dtypes are f32, bf16 or f16.
struct AddRmsNormArgs {
  float* residual = nullptr;    // x [rows, hidden]; written only where there is a delta
  const void* delta = nullptr;  // [rows, hidden] or null: nothing is added
  DType delta_dtype = DType::kF32;
  const float* gain = nullptr;  // [hidden]
  float eps = 1e-6f;
  int64_t rows = 0;
  int32_t hidden = 0;   // a multiple of 8, at most kMaxNormHidden
  void* out = nullptr;  // [rows, hidden]; not residual
  DType out_dtype = DType::kF32;
};

void AddRmsNorm(Stream stream, const AddRmsNormArgs& args);

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_RMS_NORM_H_
