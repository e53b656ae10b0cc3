// Rotary position embedding (half-split pairs (j, j + rotary/2)), the optional per-head RMSNorm of queries
// and keys before it, and the write of keys and values into the paged pool: one pass over the fused
// projections.
//
// Angles are computed once per step and shared by all layers: angle = position * inv_freq rounded to f32,
// cosine and sine of that angle correct to 1e-7. Scaling of frequencies (llama3, linear) is the caller's: it
// is part of inv_freq.
#ifndef ORRERY_KERNELS_CPU_ROPE_H_
#define ORRERY_KERNELS_CPU_ROPE_H_

#include <cstdint>

#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/thread_pool.h"

namespace orrery {

// positions [rows], each in [0, 2^24); inv_freq [half] -> cos_sin [rows, 2, half]: cosines, then sines.
void RopeAngles(ThreadPool& pool, const int32_t* positions, int64_t rows, const float* inv_freq, int32_t half,
                float* cos_sin);

struct RopeKvArgs {
  AttentionShape shape;
  float* qkv = nullptr;  // [rows, qkv_stride]; queries are normalised and rotated in place
  int64_t rows = 0;
  const float* cos_sin = nullptr;  // [rows, 2, rotary_dim / 2]
  int32_t rotary_dim = 0;          // even, at most head_dim; dimensions beyond are left as they are
  const float* q_gain = nullptr;   // [head_dim] or null: no normalisation of queries
  const float* k_gain = nullptr;   // [head_dim] or null
  float eps = 1e-6f;               // of both
  // [rows]: block * kKvBlockTokens + place in the block. A negative slot writes nothing.
  const int64_t* kv_slots = nullptr;
  KvPoolView pool;
};

void RopeAndWriteKv(ThreadPool& threads, const RopeKvArgs& args);

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_ROPE_H_
