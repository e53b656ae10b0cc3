// The row functions that are compiled once per instruction set (vector_kernels_*.cc, all from
// the -inl.h files), and the choice between them. Internal to kernels/cpu: callers use norm.h, rope.h,
// attention.h, sample.h and the others.
#ifndef ORRERY_KERNELS_CPU_VECTOR_KERNELS_H_
#define ORRERY_KERNELS_CPU_VECTOR_KERNELS_H_

#include <cstdint>

#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/cpu_features.h"

namespace orrery {

struct VectorKernels {
  // An f32 out may be x.
  void (*rms_norm)(const float* x, const float* gain, float eps, int64_t n, void* out, bool out_bf16);
  void (*widen_bf16)(const void* from, int64_t n, float* to);
  void (*widen_f16)(const void* from, int64_t n, float* to);
  // Round to nearest even.
  void (*narrow_bf16)(const float* from, int64_t n, uint16_t* to);
  void (*narrow_f16)(const float* from, int64_t n, uint16_t* to);
  // to [n][2] bf16 (4-byte aligned): first[i], second[i].
  void (*pair_bf16)(const float* first, const float* second, int64_t n, void* to);
  void (*rope_angles)(int32_t position, const float* inv_freq, int64_t half, float* cosine, float* sine);
  // `heads` heads of `dim` floats side by side, in place; gain null: no normalisation.
  void (*norm_and_rotate)(float* head, int64_t heads, int64_t dim, const float* gain, float eps,
                          const float* cosine, const float* sine, int64_t half);
  // Keys of 16 tokens, `stride` floats apart, as a block of the pool keeps them (kv_layout.h).
  void (*key_block_bf16)(const float* keys, int64_t stride, int64_t dim, int64_t padded, void* block);
  void (*attention_f32)(const AttentionTileArgs& args);
  void (*attention_bf16)(const AttentionTileArgs& args);
  void (*attention_f16)(const AttentionTileArgs& args);

  // Sampling: rows of n logits.
  // The largest value (-infinity when all are) and whether one is NaN or +infinity.
  float (*max_logit)(const float* x, int64_t n, bool* broken);
  // sum of exp(x - shift), in double over f32 terms
  double (*sum_exp)(const float* x, int64_t n, float shift);
  // w[i] = exp((x[i] - shift) * scale); returns the sum in double
  double (*exp_weights)(const float* x, int64_t n, float shift, float scale, float* w);
  // How many x[i] >= least, and their sum in double.
  int64_t (*count_at_least)(const float* x, int64_t n, float least, double* sum);
  // Copies in order the x[i] with least <= x[i] < below to out (room for n + 16; may be x itself).
  int64_t (*keep_between)(const float* x, int64_t n, float least, float below, float* out);
  // The first `limit` i, ascending, with x[i] >= least; ids has room for limit + 16.
  int64_t (*ids_at_least)(const float* x, int64_t n, float least, int64_t limit, int32_t* ids);
};

// The set for ActiveIsa().
const VectorKernels& ActiveVectorKernels();

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_VECTOR_KERNELS_H_
