// The gate of a feed-forward layer: out = silu(gate) * up with silu(x) = x / (1 + exp(-x)).
#ifndef ORRERY_KERNELS_CUDA_SILU_MUL_H_
#define ORRERY_KERNELS_CUDA_SILU_MUL_H_

#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/dtype.h"

namespace orrery::cuda {

// dtypes are f32, bf16 or f16; matrices are packed and aligned to 16 bytes.
struct SiluMulArgs {
  const void* gate_up = nullptr;  // [rows, 2 * inner]: gate, then up
  DType dtype = DType::kF32;      // of gate_up
  int64_t rows = 0;
  int32_t inner = 0;    // a multiple of 8
  void* out = nullptr;  // [rows, inner]
  DType out_dtype = DType::kF32;
};

void SiluMul(Stream stream, const SiluMulArgs& args);

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_SILU_MUL_H_
