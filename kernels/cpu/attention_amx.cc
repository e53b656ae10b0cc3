// Attention of one query tile over bf16 keys and values on AMX tiles.
//
// Per KV tile of kKvTile tokens: the values are staged as AMX tiles once for all rows; then, 32 rows at a
// time, scores = queries x keys (keys straight from the pool: a block is a column of tiles), online softmax
// into bf16 weights, out += weights x values. A row's arithmetic is the same in every shape of tile:
// dimensions in steps of 32 for a score, tokens in steps of 32 for an output, both counted from zero.
#include "kernels/cpu/attention_tile.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/amx_tiles.h"
#include "kernels/dtype.h"

namespace orrery {
namespace {

using amx::kTileBytes;
using amx::kTileRows;
using amx::OrderMemory;

constexpr int64_t kStep = 32;                   // products that one tile instruction adds up
constexpr int64_t kScoreStride = kKvTile + 16;  // floats; off the power of two, which would share cache sets
constexpr int64_t kScoreBytes = kScoreStride * 4;
constexpr int64_t kWeightStride = kKvTile + 32;  // bf16

#define ORRERY_INLINE [[gnu::always_inline]] inline

struct Buffers {
  uint16_t* q;        // [rows16, key_dims]
  uint16_t* values;   // [kKvTile / 32][value_dims / 16] tiles
  float* out;         // [rows16, value_dims]
  float* sum;         // [rows16, 16 lanes]
  float* max;         // [rows16]
  float* scores;      // [32, kScoreStride]
  uint16_t* weights;  // [32, kWeightStride]
  int64_t rows;
  int64_t key_dims;
  int64_t value_dims;
};

template <typename T>
T* Take(uint8_t** scratch, int64_t count) {
  T* taken = reinterpret_cast<T*>(*scratch);
  *scratch += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
  return taken;
}

ORRERY_INLINE __mmask16 FirstLanes(int64_t n) {
  return n >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << (n > 0 ? n : 0)) - 1);
}

Buffers Prepare(const AttentionTileArgs& a) {
  Buffers t;
  t.rows = int64_t{a.tokens} * a.group;
  t.key_dims = (a.head_dim + kStep - 1) / kStep * kStep;
  t.value_dims = a.value_dims;
  const int64_t rows16 = (t.rows + kTileRows - 1) / kTileRows * kTileRows;
  uint8_t* scratch = a.scratch;
  t.scores = Take<float>(&scratch, 32 * kScoreStride);
  t.weights = Take<uint16_t>(&scratch, 32 * kWeightStride);
  t.values = Take<uint16_t>(&scratch, kKvTile * t.value_dims);
  t.q = Take<uint16_t>(&scratch, rows16 * t.key_dims);
  t.out = Take<float>(&scratch, rows16 * t.value_dims);
  t.sum = Take<float>(&scratch, rows16 * 16);
  t.max = Take<float>(&scratch, rows16);
  for (int64_t r = 0; r < rows16; ++r) {
    const float* from = a.q + r / a.group * a.q_stride + r % a.group * a.head_dim;
    for (int64_t d = 0; d < t.key_dims; d += 16) {
      const __mmask16 lanes = r < t.rows ? FirstLanes(a.head_dim - d) : 0;
      const __m256bh bits = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, from + d));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(t.q + r * t.key_dims + d), (__m256i)bits);
    }
    _mm512_storeu_ps(t.sum + r * 16, _mm512_setzero_ps());
    t.max[r] = -__builtin_inff();
  }
  return t;
}

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
Ahead NextKeys(const AttentionTileArgs& a, int64_t begin) {
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
void StageValues(const AttentionTileArgs& a, const Buffers& t, int64_t first_block, int64_t tokens,
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
void ScoresOfPair(const AttentionTileArgs& a, const Buffers& t, int64_t row, int64_t first_block,
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
void ScoresOfFew(const AttentionTileArgs& a, const Buffers& t, int64_t row, int64_t first_block,
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

// Softmax weights are made as bf16 bits in integer arithmetic. With n = round(512 * log2(weight)) + 127 *
// 512, n / 4 would be the bits of a bf16 if 2^f were 1 + f; kBelow is by how much 512 * 2^f lies below 512 *
// (1 + f) in each 64th of an octave, 2 rounds. The weights' relative error is 0.19 % root mean square (0.17 %
// is that of rounding to bf16). A weight below 2^-127 is zero, that of the row's maximum is 1.
constexpr float kUnits = 512.0f;
alignas(64) constexpr uint8_t kBelow[64] = {1,  4,  6,  8,  10, 13, 15, 17, 19, 21, 22, 24, 26, 27, 29, 30,
                                            32, 33, 34, 36, 37, 38, 39, 40, 40, 41, 42, 42, 43, 43, 44, 44,
                                            44, 44, 44, 44, 44, 43, 43, 43, 42, 41, 41, 40, 39, 38, 37, 36,
                                            34, 33, 31, 30, 28, 26, 24, 22, 20, 18, 15, 13, 10, 7,  5,  2};
alignas(64) constexpr uint16_t kLowWords[32] = {0,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20,
                                                22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42,
                                                44, 46, 48, 50, 52, 54, 56, 58, 60, 62};
constexpr float kInteger = 0x1p23f;  // added to an integer, it leaves that integer in the low bits
constexpr float kRounding = 2.0f;
constexpr float kOne = kInteger + 127 * kUnits + kRounding;

class WeightMaker {
 public:
  // `units` turns scores into 512ths of an octave.
  explicit WeightMaker(float units)
      : units_(_mm512_set1_ps(units)),
        least_(_mm512_set1_ps(kInteger + kRounding)),
        below_(_mm512_load_si512(kBelow)),
        low_words_(_mm512_load_si512(kLowWords)) {}

  // 32 weights of a row; offset = kOne - the row's maximum in units.
  ORRERY_INLINE __m512i operator()(__m512 s0, __m512 s1, __m512 offset) const {
    const __m512i z0 = (__m512i)_mm512_max_ps(_mm512_fmadd_ps(s0, units_, offset), least_);
    const __m512i z1 = (__m512i)_mm512_max_ps(_mm512_fmadd_ps(s1, units_, offset), least_);
    const __m512i n = _mm512_permutex2var_epi16(z0, low_words_, z1);
    const __m512i below =
        _mm512_maskz_permutexvar_epi8(0x5555555555555555ull, _mm512_srli_epi16(n, 3), below_);
    return _mm512_srli_epi16(_mm512_sub_epi16(n, below), 2);
  }

 private:
  __m512 units_, least_;
  __m512i below_, low_words_;
};

// 2^x for x <= 0, relative error below 2e-7.
ORRERY_INLINE __m512 Exp2(__m512 x) {
  const __m512 fraction = _mm512_reduce_ps(x, 1);  // x - floor(x)
  __m512 p = _mm512_set1_ps(0.001877576673370389f);
  p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(0.008989340094708692f));
  p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(0.05582631805004022f));
  p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(0.24015361704533508f));
  p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(0.6931530732000754f));
  p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(0.9999999250635297f));
  return _mm512_scalef_ps(p, x);  // times 2^floor(x)
}

// The largest of `count` > 0 scores; a NaN is passed over (it comes back through the values).
ORRERY_INLINE float MaxScore(const float* scores, int64_t count) {
  const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
  __m512 best[4] = {lowest, lowest, lowest, lowest};
  int64_t i = 0;
  for (; i + 64 <= count; i += 64) {
    for (int u = 0; u < 4; ++u) best[u] = _mm512_max_ps(_mm512_loadu_ps(scores + i + u * 16), best[u]);
  }
  for (; i < count; i += 16) {
    best[0] = _mm512_max_ps(_mm512_mask_loadu_ps(lowest, FirstLanes(count - i), scores + i), best[0]);
  }
  return _mm512_reduce_max_ps(
      _mm512_max_ps(_mm512_max_ps(best[0], best[1]), _mm512_max_ps(best[2], best[3])));
}

// Raises the maximum of a row to cover this KV tile, rescaling what the row has summed up so far.
ORRERY_INLINE void RaiseMax(const Buffers& t, int64_t row, float top, bool first) {
  const float old_max = t.max[row];
  if (!(top > old_max)) return;
  t.max[row] = top;
  if (first) return;
  const __m512 factor = Exp2(_mm512_set1_ps((old_max - top) * (1.0f / kUnits)));
  float* out = t.out + row * t.value_dims;
  for (int64_t d = 0; d < t.value_dims; d += 16) {
    _mm512_storeu_ps(out + d, _mm512_mul_ps(_mm512_loadu_ps(out + d), factor));
  }
  float* sum = t.sum + row * 16;
  _mm512_storeu_ps(sum, _mm512_mul_ps(_mm512_loadu_ps(sum), factor));
}

// Scores of one row become weights of `span` tokens (a multiple of 32), zero from `valid` on, and are summed.
ORRERY_INLINE void WeighRow(const Buffers& t, const WeightMaker& weigh, int64_t row, const float* scores,
                            uint16_t* weights, int64_t span, int64_t valid) {
  const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
  const __m512 offset = _mm512_set1_ps(kOne - t.max[row]);
  __m512 even = _mm512_loadu_ps(t.sum + row * 16), odd = _mm512_setzero_ps();
  int64_t i = 0;
  for (; i + 64 <= valid; i += 64) {
    const __m512i w0 = weigh(_mm512_loadu_ps(scores + i), _mm512_loadu_ps(scores + i + 16), offset);
    const __m512i w1 = weigh(_mm512_loadu_ps(scores + i + 32), _mm512_loadu_ps(scores + i + 48), offset);
    even = _mm512_dpbf16_ps(even, (__m512bh)w0, ones);
    odd = _mm512_dpbf16_ps(odd, (__m512bh)w1, ones);
    _mm512_storeu_si512(weights + i, w0);
    _mm512_storeu_si512(weights + i + 32, w1);
  }
  for (; i < span; i += 32) {
    const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
    const __m512 s0 = _mm512_mask_loadu_ps(lowest, FirstLanes(valid - i), scores + i);
    const __m512 s1 = _mm512_mask_loadu_ps(lowest, FirstLanes(valid - i - 16), scores + i + 16);
    const __m512i w = weigh(s0, s1, offset);
    if (i % 64 == 0) {
      even = _mm512_dpbf16_ps(even, (__m512bh)w, ones);
    } else {
      odd = _mm512_dpbf16_ps(odd, (__m512bh)w, ones);
    }
    _mm512_storeu_si512(weights + i, w);
  }
  _mm512_storeu_ps(t.sum + row * 16, _mm512_add_ps(even, odd));
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

// The span of one KV tile.
struct Span {
  int64_t begin;   // token
  int64_t tokens;  // written ones, up to kKvTile
  bool staged;     // all columns of its values are
};

void AddColumns(const AttentionTileArgs& a, const Buffers& t, const Span& span, int64_t row, bool pair,
                int64_t steps) {
  const int64_t columns = t.value_dims / 16;
  const int64_t first_block = span.begin / kKvBlockTokens;
  const bool first = span.begin == 0;
  if (pair) {
    if (!span.staged) StageValues(a, t, first_block, span.tokens, 0, columns, {});
    OrderMemory();
    for (int64_t c = 0; c + 2 <= columns; c += 2) AddToPair<2>(t, row, c, steps, first);
    if (columns % 2 != 0) AddToPair<1>(t, row, columns - 1, steps, first);
    return;
  }
  // Rows that are alone with the values stage few columns at a time: those stay in the nearest cache.
  Ahead ahead = NextKeys(a, span.begin);
  ahead.bytes /= (columns + 3) / 4;  // as much with each part
  const uint8_t* values = reinterpret_cast<const uint8_t*>(t.values);
  for (int64_t c = 0; c < columns; c += 4) {
    const int64_t some = columns - c < 4 ? columns - c : 4;
    if (!span.staged) StageValues(a, t, first_block, span.tokens, c, some, ahead);
    ahead.from += ahead.bytes;
    OrderMemory();
    const uint8_t* from = span.staged ? values + c * kTileBytes : values;
    const int64_t stride = span.staged ? columns : some;
    if (some == 4) AddToFew<4>(t, row, c, from, stride, steps, first);
    if (some == 3) AddToFew<3>(t, row, c, from, stride, steps, first);
    if (some == 2) AddToFew<2>(t, row, c, from, stride, steps, first);
    if (some == 1) AddToFew<1>(t, row, c, from, stride, steps, first);
  }
}

// One KV tile for 32 rows from `row` on, or for the last 16 or fewer; the last of them sees some of it.
void TileRows(const AttentionTileArgs& a, const Buffers& t, const Span& span, int64_t row) {
  const bool pair = row + kTileRows < t.rows;
  const int64_t last = (row + 2 * kTileRows < t.rows ? row + 2 * kTileRows : t.rows) - 1;
  const int64_t seen = a.position + last / a.group + 1 - span.begin;
  const int64_t tokens = seen < kKvTile ? seen : kKvTile;
  const int64_t steps = (tokens + kStep - 1) / kStep;
  const auto scores = pair ? ScoresOfPair : ScoresOfFew;
  scores(a, t, row, span.begin / kKvBlockTokens, (tokens + kKvBlockTokens - 1) / kKvBlockTokens);
  OrderMemory();
  const float units = a.scale * (1.44269504088896341f * kUnits);
  const auto valid = [&](int64_t r) {
    const int64_t visible = a.position + r / a.group + 1 - span.begin;
    return visible < tokens ? visible : tokens;
  };
  // All maxima first: a row's weights wait for its maximum, and the rows would wait in turn.
  for (int64_t r = row; r <= last; ++r) {
    if (valid(r) <= 0) continue;
    const float top = MaxScore(t.scores + (r - row) * kScoreStride, valid(r)) * units;
    RaiseMax(t, r, _mm_cvtss_f32(_mm_roundscale_ss(_mm_setzero_ps(), _mm_set_ss(top), 0)), span.begin == 0);
  }
  const WeightMaker weigh(units);
  for (int64_t r = row; r <= last; ++r) {
    uint16_t* weights = t.weights + (r - row) * kWeightStride;
    if (valid(r) <= 0) {
      __builtin_memset(weights, 0, static_cast<size_t>(steps * kStep) * 2);
    } else {
      WeighRow(t, weigh, r, t.scores + (r - row) * kScoreStride, weights, steps * kStep, valid(r));
    }
  }
  AddColumns(a, t, span, row, pair, steps);
}

void WriteOut(const AttentionTileArgs& a, const Buffers& t) {
  for (int64_t r = 0; r < t.rows; ++r) {
    const int64_t at = r / a.group * a.out_stride + r % a.group * a.head_dim;
    const __m512 inverse = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(_mm512_loadu_ps(t.sum + r * 16)));
    for (int64_t d = 0; d < a.head_dim; d += 16) {
      const __mmask16 lanes = FirstLanes(a.head_dim - d);
      // Adding zero: a negative zero would tell shapes of tiles apart.
      const __m512 v =
          _mm512_fmadd_ps(_mm512_loadu_ps(t.out + r * t.value_dims + d), inverse, _mm512_setzero_ps());
      if (a.out_bf16) {
        _mm256_mask_storeu_epi16(reinterpret_cast<uint16_t*>(a.out) + at + d, lanes,
                                 (__m256i)_mm512_cvtneps_pbh(v));
      } else {
        _mm512_mask_storeu_ps(reinterpret_cast<float*>(a.out) + at + d, lanes, v);
      }
    }
  }
}

}  // namespace

void AttentionTileAmx(const AttentionTileArgs& a) {
  const Buffers t = Prepare(a);
  amx::ConfigureTiles(t.rows < kTileRows ? t.rows : kTileRows);
  const int64_t end = int64_t{a.position} + a.tokens;
  for (int64_t begin = 0; begin < end; begin += kKvTile) {
    const int64_t hidden =
        begin > a.position ? (begin - a.position) * a.group : 0;  // rows before this KV tile
    int64_t row = hidden / (2 * kTileRows) * (2 * kTileRows);
    Span span = {.begin = begin, .tokens = end - begin < kKvTile ? end - begin : kKvTile, .staged = false};
    for (; row < t.rows; row += 2 * kTileRows) {
      TileRows(a, t, span, row);
      span.staged = true;  // if it was a pair; after fewer rows there are none
    }
  }
  _tile_release();
  WriteOut(a, t);
}

}  // namespace orrery
#endif
