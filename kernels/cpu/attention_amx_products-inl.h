// The two products of attention on AMX tiles: scores = queries x keys, keys straight from the pool (a block
// is a column of tiles), and out += weights x values, values staged as tiles. A row's arithmetic is the same
// in every shape of tile: dimensions in steps of 32 for a score, tokens in steps of 32 for an output, both
// counted from zero. Included by attention_amx.cc.
#ifndef ORRERY_KERNELS_CPU_ATTENTION_AMX_PRODUCTS_INL_H_
#define ORRERY_KERNELS_CPU_ATTENTION_AMX_PRODUCTS_INL_H_

#include "kernels/cpu/attention_amx_buffers.h"

namespace orrery::amx {

ORRERY_INLINE const uint8_t* KeyBlock(const AttentionTileArgs& a, int64_t block) {
  return a.keys + a.block_table[block] * a.block_stride;
}

// Decode reads each key and value once, from memory, in blocks that lie anywhere: the hardware cannot follow.
// While a few rows meet the keys of a KV tile, its values are asked for; with the values, the keys that come
// next: a tile instruction waits for its operand, the memory should not wait for it.

ORRERY_INLINE void Prefetch(const uint8_t* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(reinterpret_cast<const char*>(from + i), _MM_HINT_T0);
}

// The first `columns` columns (of 16 dimensions) from first_column on of the values of one block, as half of
// the tiles [column] at `to`; `tokens` of them are written.
ORRERY_INLINE void StageBlock(const uint8_t* from, int64_t value_dims, int64_t tokens, int64_t columns,
                              uint8_t* to) {
  for (int64_t pair = 0; pair < kKvBlockTokens / 2; ++pair) {
    const int64_t left = tokens - pair * 2;
    const __m512i keep = _mm512_set1_epi32(left >= 2 ? -1 : left == 1 ? 0xffff : 0);
    for (int64_t c = 0; c < columns; ++c) {
      const __m512i values = _mm512_loadu_si512(from + pair * value_dims * 4 + c * 64);
      _mm512_store_si512(to + pair * 64 + c * kTileBytes, _mm512_and_si512(values, keep));
    }
  }
}

// `bytes` of each of some blocks that will be read next.
struct Ahead {
  const uint8_t* from = nullptr;  // in block 0
  const int32_t* table = nullptr;
  int64_t blocks = 0;
  int64_t bytes = 0;
};

// The keys of the KV tile behind the one that begins at `begin`, or of this thread's next work.
inline Ahead NextKeys(const AttentionTileArgs& a, int64_t begin) {
  const int64_t left = a.position + a.tokens - begin - kKvTile;
  const int64_t tokens = left > 0 ? left : a.next_tokens;
  const int64_t blocks = (tokens + kKvBlockTokens - 1) / kKvBlockTokens;
  return {.from = left > 0 ? a.keys : a.next_keys,
          .table = left > 0 ? a.block_table + (begin + kKvTile) / kKvBlockTokens : a.next_table,
          .blocks = blocks < kKvTile / kKvBlockTokens ? blocks : kKvTile / kKvBlockTokens,
          .bytes = a.value_offset};
}

// `columns` columns of the values of `tokens` tokens as tiles [step][column]; zero beyond the tokens up to a
// whole step: what lies in the pool there may be anything, and zero weights do not undo infinities.
inline void StageValues(const AttentionTileArgs& a, const Buffers& t, int64_t first_block, int64_t tokens,
                        int64_t first_column, int64_t columns, const Ahead& ahead) {
  uint8_t* to = reinterpret_cast<uint8_t*>(t.values);
  const int64_t offset = a.value_offset + first_column * 64;
  for (int64_t at = 0; at < tokens; at += kKvBlockTokens) {
    const int64_t b = at / kKvBlockTokens;
    if (b < ahead.blocks) Prefetch(ahead.from + ahead.table[b] * a.block_stride, ahead.bytes);
    const uint8_t* from = KeyBlock(a, first_block + b) + offset;
    uint8_t* half = to + at / kStep * columns * kTileBytes + at % kStep * 32;
    if (columns == 4 && tokens - at >= kKvBlockTokens) {
      StageBlock(from, t.value_dims, kKvBlockTokens, 4, half);
    } else {
      StageBlock(from, t.value_dims, tokens - at, columns, half);
    }
  }
  if ((tokens + kKvBlockTokens - 1) / kKvBlockTokens % 2 == 0) return;
  for (int64_t c = 0; c < columns; ++c) {
    __builtin_memset(to + (tokens / kStep * columns + c) * kTileBytes + kTileBytes / 2, 0, kTileBytes / 2);
  }
}

// Scores of 32 rows against `blocks` blocks.
inline void ScoresOfPair(const AttentionTileArgs& a, const Buffers& t, int64_t row, int64_t first_block,
                         int64_t blocks) {
  const int64_t q_stride = t.key_dims * 2;
  const uint16_t* q0 = t.q + row * t.key_dims;
  const uint16_t* q1 = q0 + kTileRows * t.key_dims;
  const int64_t steps = t.key_dims / kStep;
  float* lower = t.scores + kTileRows * kScoreStride;
  for (int64_t b = 0; b < blocks; b += 2) {
    const bool two = b + 1 < blocks;
    const uint8_t* k0 = KeyBlock(a, first_block + b);
    const uint8_t* k1 = two ? KeyBlock(a, first_block + b + 1) : k0;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t s = 0; s < steps; ++s) {
      _tile_loadd(4, q0 + s * kStep, q_stride);
      _tile_loadd(6, k0 + s * kTileBytes, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, k1 + s * kTileBytes, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, q1 + s * kStep, q_stride);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, t.scores + b * 16, kScoreBytes);
    _tile_stored(2, lower + b * 16, kScoreBytes);
    if (two) _tile_stored(1, t.scores + b * 16 + 16, kScoreBytes);
    if (two) _tile_stored(3, lower + b * 16 + 16, kScoreBytes);
  }
}

// Scores of at most 16 rows: four blocks at a time, so that four chains of products run side by side.
inline void ScoresOfFew(const AttentionTileArgs& a, const Buffers& t, int64_t row, int64_t first_block,
                        int64_t blocks) {
  const int64_t q_stride = t.key_dims * 2;
  const uint16_t* q = t.q + row * t.key_dims;
  const int64_t steps = t.key_dims / kStep;
  for (int64_t b = 0; b < blocks; b += 4) {
    const uint8_t* keys[4];
    for (int64_t i = 0; i < 4; ++i) keys[i] = KeyBlock(a, first_block + (b + i < blocks ? b + i : b));
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t s = 0; s < steps; ++s) {
      const int64_t ahead = a.value_offset + s * kTileBytes;  // the values
      _tile_loadd(4, q + s * kStep, q_stride);
      _tile_loadd(6, keys[0] + s * kTileBytes, 64);
      Prefetch(keys[0] + ahead, kTileBytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, keys[1] + s * kTileBytes, 64);
      Prefetch(keys[1] + ahead, kTileBytes);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(6, keys[2] + s * kTileBytes, 64);
      Prefetch(keys[2] + ahead, kTileBytes);
      _tile_dpbf16ps(2, 4, 6);
      _tile_loadd(7, keys[3] + s * kTileBytes, 64);
      Prefetch(keys[3] + ahead, kTileBytes);
      _tile_dpbf16ps(3, 4, 7);
    }
    float* to = t.scores + b * 16;
    _tile_stored(0, to, kScoreBytes);
    if (b + 1 < blocks) _tile_stored(1, to + 16, kScoreBytes);
    if (b + 2 < blocks) _tile_stored(2, to + 32, kScoreBytes);
    if (b + 3 < blocks) _tile_stored(3, to + 48, kScoreBytes);
  }
}

// out[32 rows, C * 16 dimensions from column] += weights x values over `steps` steps of 32 tokens, all
// columns being staged.
template <int C>
ORRERY_INLINE void AddToPair(const Buffers& t, int64_t row, int64_t column, int64_t steps, bool first) {
  const int64_t columns = t.value_dims / 16;
  const int64_t out_stride = t.value_dims * 4;
  float* o0 = t.out + row * t.value_dims + column * 16;
  float* o1 = o0 + kTileRows * t.value_dims;
  if (first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, o0, out_stride);
    _tile_loadd(2, o1, out_stride);
    if constexpr (C > 1) _tile_loadd(1, o0 + 16, out_stride);
    if constexpr (C > 1) _tile_loadd(3, o1 + 16, out_stride);
  }
  const uint16_t* w1 = t.weights + kTileRows * kWeightStride;
  const uint8_t* values = reinterpret_cast<const uint8_t*>(t.values) + column * kTileBytes;
  for (int64_t s = 0; s < steps; ++s) {
    const uint8_t* v = values + s * columns * kTileBytes;
    _tile_loadd(4, t.weights + s * kStep, kWeightStride * 2);
    _tile_loadd(6, v, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (C > 1) _tile_loadd(7, v + kTileBytes, 64);
    if constexpr (C > 1) _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, w1 + s * kStep, kWeightStride * 2);
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (C > 1) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, o0, out_stride);
  _tile_stored(2, o1, out_stride);
  if constexpr (C > 1) _tile_stored(1, o0 + 16, out_stride);
  if constexpr (C > 1) _tile_stored(3, o1 + 16, out_stride);
}

// The same for at most 16 rows and up to four columns, `stride` columns being staged, of which these come
// first.
template <int C>
ORRERY_INLINE void AddToFew(const Buffers& t, int64_t row, int64_t column, const uint8_t* values,
                            int64_t stride, int64_t steps, bool first) {
  const int64_t out_stride = t.value_dims * 4;
  float* out = t.out + row * t.value_dims + column * 16;
  if (first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, out, out_stride);
    if constexpr (C > 1) _tile_loadd(1, out + 16, out_stride);
    if constexpr (C > 2) _tile_loadd(2, out + 32, out_stride);
    if constexpr (C > 3) _tile_loadd(3, out + 48, out_stride);
  }
  for (int64_t s = 0; s < steps; ++s) {
    const uint8_t* v = values + s * stride * kTileBytes;
    _tile_loadd(4, t.weights + s * kStep, kWeightStride * 2);
    _tile_loadd(6, v, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (C > 1) _tile_loadd(7, v + kTileBytes, 64);
    if constexpr (C > 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (C > 2) _tile_loadd(6, v + 2 * kTileBytes, 64);
    if constexpr (C > 2) _tile_dpbf16ps(2, 4, 6);
    if constexpr (C > 3) _tile_loadd(7, v + 3 * kTileBytes, 64);
    if constexpr (C > 3) _tile_dpbf16ps(3, 4, 7);
  }
  _tile_stored(0, out, out_stride);
  if constexpr (C > 1) _tile_stored(1, out + 16, out_stride);
  if constexpr (C > 2) _tile_stored(2, out + 32, out_stride);
  if constexpr (C > 3) _tile_stored(3, out + 48, out_stride);
}

}  // namespace orrery::amx

#endif  // ORRERY_KERNELS_CPU_ATTENTION_AMX_PRODUCTS_INL_H_
