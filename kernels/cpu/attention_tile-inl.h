// Attention of one query tile in f32, for any head size and KV type. Included by the files compiled per
// instruction set. Every row runs the same chain of operations whatever the other rows are: scores add up
// over dimensions in order, outputs over tokens in order, the softmax is rescaled once per kKvTile tokens
// counted from position 0.
#ifndef ORRERY_KERNELS_CPU_ATTENTION_TILE_INL_H_
#define ORRERY_KERNELS_CPU_ATTENTION_TILE_INL_H_

#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/row_kernels-inl.h"
#include "kernels/cpu/simd.h"

namespace orrery::ORRERY_ISA {

constexpr int kVectorsPerGroup = 16 / kLanes;  // of the 16 tokens of a block

// scores[r][16 tokens] of `R` consecutive rows for `B` blocks of keys.
template <DType dtype, int R, int B>
ORRERY_INLINE void ScoreBlocks(const float* const* q, int64_t dims, const uint8_t* const* keys, float scale,
                               float* scores) {
  for (int part = 0; part < kVectorsPerGroup; ++part) {
    F32 sum[R][B] = {};
    if constexpr (dtype == DType::kBF16) {
      for (int64_t d = 0; d < dims; d += 2) {
        F32 even[B], odd[B];
        for (int b = 0; b < B; ++b) {
          const U32 pair = LoadAs<U32>(keys[b] + (d * 16 + part * kLanes * 2) * 2);
          even[b] = (F32)(pair << 16);
          odd[b] = (F32)(pair & 0xffff0000u);
        }
        for (int r = 0; r < R; ++r) {
          for (int b = 0; b < B; ++b) {
            sum[r][b] = Fma(odd[b], Set(q[r][d + 1]), Fma(even[b], Set(q[r][d]), sum[r][b]));
          }
        }
      }
    } else {
      for (int64_t d = 0; d < dims; ++d) {
        F32 key[B];
        for (int b = 0; b < B; ++b) key[b] = LoadWide<dtype>(keys[b], d * 16 + part * kLanes);
        for (int r = 0; r < R; ++r) {
          for (int b = 0; b < B; ++b) sum[r][b] = Fma(key[b], Set(q[r][d]), sum[r][b]);
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int b = 0; b < B; ++b) Store(scores + r * kKvTile + b * 16 + part * kLanes, sum[r][b] * scale);
    }
  }
}

// out[r][D vectors] += weights[r][0 .. count) * values of one block.
template <DType dtype, int R, int D>
ORRERY_INLINE void AddValues(const float* weights, int64_t count, const uint8_t* values, int64_t value_dims,
                             int64_t dim, float* out) {
  F32 sum[R][D];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < D; ++v) sum[r][v] = Load(out + r * value_dims + dim + v * kLanes);
  }
  for (int64_t t = 0; t < count; ++t) {
    F32 value[D];
    for (int v = 0; v < D; ++v) {
      if constexpr (dtype == DType::kBF16) {
        const U32 pair = LoadAs<U32>(values + (t / 2 * value_dims + dim + v * kLanes) * 4);
        value[v] = (F32)(t % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
      } else {
        value[v] = LoadWide<dtype>(values, t * value_dims + dim + v * kLanes);
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < D; ++v) sum[r][v] = Fma(value[v], Set(weights[r * kKvTile + t]), sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < D; ++v) Store(out + r * value_dims + dim + v * kLanes, sum[r][v]);
  }
}

template <DType dtype, int R>
ORRERY_INLINE void AddBlock(const float* weights, int64_t count, const uint8_t* values, int64_t value_dims,
                            float* out) {
  constexpr int kD = kLanes == 16 ? 4 : 2;
  int64_t dim = 0;
  for (; dim + kD * kLanes <= value_dims; dim += kD * kLanes) {
    AddValues<dtype, R, kD>(weights, count, values, value_dims, dim, out);
  }
  for (; dim < value_dims; dim += kLanes) {
    AddValues<dtype, R, 1>(weights, count, values, value_dims, dim, out);
  }
}

// Online softmax of one row over the first `count` scores of a tile, of which `valid` >= 0 are visible to it:
// scores become weights (zero beyond `valid`), out is rescaled.
ORRERY_INLINE void SoftmaxRow(float* scores, int64_t count, int64_t valid, float* row_max, float* row_sum,
                              float* out, int64_t value_dims) {
  if (valid <= 0) {
    for (int64_t t = 0; t < count; t += kLanes) Store(scores + t, F32{});
    return;
  }
  const I32 lane = LaneIndex();
  F32 best = Set(-__builtin_inff());
  for (int64_t t = 0; t < count; t += kLanes) {
    F32 s = Load(scores + t);
    if (t + kLanes > valid) {
      s = (lane + static_cast<int32_t>(t) < static_cast<int32_t>(valid)) ? s : Set(-__builtin_inff());
      Store(scores + t, s);
    }
    best = Max(best, s);
  }
  const float tile_max = ReduceMax(best);
  const float new_max = tile_max > *row_max ? tile_max : *row_max;
  F32 sum = {};
  for (int64_t t = 0; t < count; t += kLanes) {
    const F32 w = Exp(Load(scores + t) - new_max);
    Store(scores + t, w);
    sum += w;
  }
  if (new_max != *row_max) {
    const F32 factor = Exp(Set(*row_max - new_max));
    *row_sum *= factor[0];
    for (int64_t d = 0; d < value_dims; d += kLanes) Store(out + d, Load(out + d) * factor);
    *row_max = new_max;
  }
  *row_sum += ReduceAdd(sum);
}

struct TileBuffers {
  float* q;       // [rows, q_dims], the last dimension zero-filled to an even number
  float* scores;  // [rows, kKvTile]
  float* out;     // [rows, value_dims]
  float* max;     // [rows]
  float* sum;     // [rows]
  int64_t q_dims;
};

ORRERY_INLINE TileBuffers PackQueries(const AttentionTileArgs& a) {
  const int64_t rows = int64_t{a.tokens} * a.group;
  TileBuffers t;
  t.q_dims = (a.head_dim + 1) / 2 * 2;
  t.scores = reinterpret_cast<float*>(a.scratch);
  t.out = t.scores + rows * kKvTile;
  t.q = t.out + rows * a.value_dims;
  t.max = t.q + rows * t.q_dims;
  t.sum = t.max + rows;
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = a.q + r / a.group * a.q_stride + r % a.group * a.head_dim;
    float* to = t.q + r * t.q_dims;
    to[t.q_dims - 1] = 0.0f;
    __builtin_memcpy(to, from, static_cast<size_t>(a.head_dim) * 4);
    t.max[r] = -__builtin_inff();
    t.sum[r] = 0.0f;
  }
  __builtin_memset(t.out, 0, static_cast<size_t>(rows * a.value_dims) * 4);
  return t;
}

template <DType dtype, int R>
void ScoreRows(const AttentionTileArgs& a, const TileBuffers& t, int64_t row, int64_t first_block,
               int64_t blocks) {
  const float* q[R];
  for (int r = 0; r < R; ++r) q[r] = t.q + (row + r) * t.q_dims;
  float* scores = t.scores + row * kKvTile;
  const int64_t dims = dtype == DType::kBF16 ? t.q_dims : a.head_dim;
  int64_t b = 0;
  for (; b + 2 <= blocks; b += 2) {
    const uint8_t* keys[2] = {a.keys + a.block_table[first_block + b] * a.block_stride,
                              a.keys + a.block_table[first_block + b + 1] * a.block_stride};
    ScoreBlocks<dtype, R, 2>(q, dims, keys, a.scale, scores + b * 16);
  }
  if (b < blocks) {
    const uint8_t* keys[1] = {a.keys + a.block_table[first_block + b] * a.block_stride};
    ScoreBlocks<dtype, R, 1>(q, dims, keys, a.scale, scores + b * 16);
  }
}

template <DType dtype, int R>
void AddRows(const AttentionTileArgs& a, const TileBuffers& t, int64_t row, int64_t first_block,
             int64_t tokens) {
  for (int64_t at = 0; at < tokens; at += 16) {
    const uint8_t* values = a.keys + a.block_table[first_block + at / 16] * a.block_stride + a.value_offset;
    AddBlock<dtype, R>(t.scores + row * kKvTile + at, tokens - at < 16 ? tokens - at : 16, values,
                       a.value_dims, t.out + row * a.value_dims);
  }
}

template <DType dtype, int R>
void TileRows(const AttentionTileArgs& a, const TileBuffers& t, int64_t row, int64_t begin) {
  const int64_t seen = a.position + (row + R - 1) / a.group + 1;  // tokens visible to the last of the rows
  if (seen <= begin) return;
  const int64_t tokens = seen - begin < kKvTile ? seen - begin : kKvTile;
  const int64_t blocks = (tokens + 15) / 16;
  ScoreRows<dtype, R>(a, t, row, begin / 16, blocks);
  for (int r = 0; r < R; ++r) {
    const int64_t valid = a.position + (row + r) / a.group + 1 - begin;
    SoftmaxRow(t.scores + (row + r) * kKvTile, blocks * 16, valid < tokens ? valid : tokens, t.max + row + r,
               t.sum + row + r, t.out + (row + r) * a.value_dims, a.value_dims);
  }
  AddRows<dtype, R>(a, t, row, begin / 16, tokens);
}

template <DType dtype>
void AttentionTile(const AttentionTileArgs& a) {
  const TileBuffers t = PackQueries(a);
  const int64_t rows = int64_t{a.tokens} * a.group;
  const int64_t end = int64_t{a.position} + a.tokens;
  for (int64_t begin = 0; begin < end; begin += kKvTile) {
    int64_t row = 0;
    for (; row + 4 <= rows; row += 4) TileRows<dtype, 4>(a, t, row, begin);
    for (; row + 2 <= rows; row += 2) TileRows<dtype, 2>(a, t, row, begin);
    if (row < rows) TileRows<dtype, 1>(a, t, row, begin);
  }
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r / a.group * a.out_stride + r % a.group * a.head_dim;
    void* to = a.out + at * (a.out_bf16 ? 2 : 4);
    const F32 inverse = Set(1.0f / t.sum[r]);
    const float* from = t.out + r * a.value_dims;
    for (int64_t d = 0; d < a.head_dim; d += kLanes) {
      const int64_t left = a.head_dim - d;
      const F32 v = Load(from + d) * inverse + 0.0f;  // no negative zero: it would tell tiles apart
      if (left >= kLanes) {
        StoreOut(to, a.out_bf16, d, v);
      } else {
        StoreOutFirst(to, a.out_bf16, d, v, left);
      }
    }
  }
}

}  // namespace orrery::ORRERY_ISA

#endif  // ORRERY_KERNELS_CPU_ATTENTION_TILE_INL_H_
