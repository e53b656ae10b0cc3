// Rows of a table by number, widened to f32: token embeddings, and the rows of a step that are sampled.
#ifndef ORRERY_KERNELS_CUDA_GATHER_ROWS_H_
#define ORRERY_KERNELS_CUDA_GATHER_ROWS_H_

#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/dtype.h"

namespace orrery::cuda {

// Matrices are packed and aligned to 16 bytes.
struct GatherRowsArgs {
  const void* table = nullptr;   // [any, hidden]
  DType dtype = DType::kF32;     // of the table: f32, bf16 or f16
  int32_t hidden = 0;            // a multiple of 8
  const int32_t* ids = nullptr;  // [rows], each a row of the table
  int64_t rows = 0;
  float* out = nullptr;  // [rows, hidden]
};

void GatherRows(Stream stream, const GatherRowsArgs& args);

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_GATHER_ROWS_H_
