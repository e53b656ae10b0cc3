// A matrix product of few rows, which is a read of the weights: out = x W^T + bias (then gated) + residual
// for 1 to 8 rows of bf16 or f16, accumulated in f32. A row's result depends on that row alone, not on how
// many there are.
#ifndef ORRERY_KERNELS_CUDA_SKINNY_MATMUL_H_
#define ORRERY_KERNELS_CUDA_SKINNY_MATMUL_H_

#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/dtype.h"

namespace orrery::cuda {

inline constexpr int32_t kMaxSkinnyRows = 8;

// Matrices are packed and aligned to 16 bytes.
struct SkinnyMatMulArgs {
  const void* x = nullptr;       // [rows, k]
  DType dtype = DType::kBF16;    // of x and weight: bf16 or f16
  int32_t rows = 0;              // 1 to kMaxSkinnyRows
  const void* weight = nullptr;  // [n, k]
  int64_t n = 0;
  int64_t k = 0;  // a multiple of 8
  // W is gate and up, [n / 2, k] each, n even: out is silu(gate) * up, n / 2 columns.
  bool gated = false;
  const float* bias = nullptr;      // [n] or null, added before the gate
  const float* residual = nullptr;  // shape of out, or null; may be out
  void* out = nullptr;              // [rows, n or n / 2]
  DType out_dtype = DType::kF32;    // f32, bf16 or f16
};

void SkinnyMatMul(Stream stream, const SkinnyMatMulArgs& args);

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_SKINNY_MATMUL_H_
