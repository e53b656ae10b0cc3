// The paged KV pool as the CPU kernels lay it out. A pool holds blocks of kKvBlockTokens tokens; a block of
// one layer keeps, for every KV head, its keys and then its values:
//
//   bf16  keys [dims / 2][16 tokens][2 dims], values [16 tokens / 2][dims][2 tokens]: what a dot product over
//         pairs (AMX tiles, AVX-512 BF16) reads without shuffling
//   f32, f16  keys [dims][16 tokens], values [16 tokens][dims]
//
// Tokens lie along vector lanes in the keys and dimensions in the values, so no reduction ever crosses lanes.
// Rows are padded to whole tiles (PaddedKeyDims, PaddedValueDims); the padding of keys is written as zero
// together with every token. The layout depends on shape and dtype only, never on the instruction set: a
// block may be copied, cached and sent as bytes.
#ifndef ORRERY_KERNELS_CPU_KV_LAYOUT_H_
#define ORRERY_KERNELS_CPU_KV_LAYOUT_H_

#include <cstdint>

#include "kernels/dtype.h"

namespace orrery {

constexpr int kKvBlockTokens = 16;
constexpr int kMaxHeadDim = 256;

// What a layer of attention looks like. num_q_heads is a multiple of num_kv_heads, head_dim in
// [1, kMaxHeadDim], kv_dtype one of f32, bf16, f16.
struct AttentionShape {
  int32_t num_q_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  DType kv_dtype = DType::kF32;

  int32_t group() const { return num_q_heads / num_kv_heads; }  // query heads per KV head
  // Floats of one row of fused projections [query heads | key heads | value heads].
  int64_t qkv_stride() const { return int64_t{num_q_heads + 2 * num_kv_heads} * head_dim; }
};

constexpr bool IsValid(const AttentionShape& shape) {
  return shape.num_kv_heads > 0 && shape.num_q_heads > 0 && shape.num_q_heads % shape.num_kv_heads == 0 &&
         shape.head_dim > 0 && shape.head_dim <= kMaxHeadDim &&
         (shape.kv_dtype == DType::kF32 || shape.kv_dtype == DType::kBF16 || shape.kv_dtype == DType::kF16);
}

constexpr int64_t PaddedKeyDims(const AttentionShape& shape) {
  return shape.kv_dtype == DType::kBF16 ? (shape.head_dim + 31) / 32 * 32 : shape.head_dim;
}

constexpr int64_t PaddedValueDims(const AttentionShape& shape) { return (shape.head_dim + 15) / 16 * 16; }

constexpr int64_t KvKeyBytes(const AttentionShape& shape) {
  return PaddedKeyDims(shape) * kKvBlockTokens * static_cast<int64_t>(SizeOf(shape.kv_dtype));
}

constexpr int64_t KvHeadBytes(const AttentionShape& shape) {
  return KvKeyBytes(shape) +
         PaddedValueDims(shape) * kKvBlockTokens * static_cast<int64_t>(SizeOf(shape.kv_dtype));
}

// Bytes of one block of one layer; a multiple of 32, of 64 unless head_dim is odd in f16.
constexpr int64_t KvBlockBytes(const AttentionShape& shape) {
  return KvHeadBytes(shape) * shape.num_kv_heads;
}

// One layer of the pool: block b starts at base + b * block_stride. The stride leaves the owner free to keep
// all layers of a block together or all blocks of a layer. Both are multiples of 64 for full speed.
struct KvPoolView {
  void* base = nullptr;
  int64_t block_stride = 0;  // bytes, at least KvBlockBytes

  uint8_t* block(int64_t index) const { return static_cast<uint8_t*>(base) + index * block_stride; }
};

// Consecutive tokens of one sequence in a step. Its rows are row_begin .. row_begin + count of the step's
// activations, their positions start at `position`, and position p of the sequence lives in block
// block_table[p / kKvBlockTokens].
struct KvSlice {
  int32_t row_begin = 0;
  int32_t count = 0;
  int32_t position = 0;
  const int32_t* block_table = nullptr;
};

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_KV_LAYOUT_H_
