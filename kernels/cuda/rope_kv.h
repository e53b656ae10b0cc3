// Rotary position embedding (half-split pairs (j, j + rotary/2)), the optional per-head RMSNorm of queries
// and keys before it, and the write of keys and values into the paged pool: one kernel after the projection.
#ifndef ORRERY_KERNELS_CUDA_ROPE_KV_H_
#define ORRERY_KERNELS_CUDA_ROPE_KV_H_

#include <cstdint>

#include "kernels/cuda/kv_pages.h"
#include "kernels/cuda/stream.h"
#include "kernels/dtype.h"

namespace orrery::cuda {

struct RopeKvArgs {
  // [rows, (q_heads + 2 kv_heads) * head_dim], f32 or bf16: queries are normalised and rotated in place; keys
  // and values go to the pool.
  void* qkv = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int32_t q_heads = 0;
  KvPages pages;                       // head_dim is even, at most 256
  int32_t rotary_dim = 0;              // even, at most head_dim; dimensions beyond are not rotated
  const float* cos_sin = nullptr;      // [positions, 2, rotary_dim / 2]: cosines, then sines
  const int32_t* positions = nullptr;  // [rows], rows of cos_sin
  const float* q_gain = nullptr;       // [head_dim] or null: no normalisation of queries
  const float* k_gain = nullptr;       // [head_dim] or null
  float eps = 1e-6f;                   // of both
  // [rows]: page * kPageTokens + place in the page. A negative slot writes nothing.
  const int64_t* slots = nullptr;
};

void RopeAndWriteKv(Stream stream, const RopeKvArgs& args);

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_ROPE_KV_H_
