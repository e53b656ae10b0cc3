// Attention of one query tile over bf16 keys and values on AMX tiles.
//
// Per KV tile of kKvTile tokens: the values are staged as AMX tiles once for all rows; then, 32 rows at a
// time, scores, online softmax, sums of weighted values.
#include "kernels/cpu/attention_tile.h"

#if defined(__x86_64__)
#include "kernels/cpu/attention_amx_products-inl.h"
#include "kernels/cpu/attention_amx_softmax-inl.h"

namespace orrery {
namespace amx {
namespace {

template <typename T>
T* Take(uint8_t** scratch, int64_t count) {
  T* taken = reinterpret_cast<T*>(*scratch);
  *scratch += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
  return taken;
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
}  // namespace amx

void AttentionTileAmx(const AttentionTileArgs& a) {
  using namespace amx;  // the parts of this function
  const Buffers t = Prepare(a);
  ConfigureTiles(t.rows < kTileRows ? t.rows : kTileRows);
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
