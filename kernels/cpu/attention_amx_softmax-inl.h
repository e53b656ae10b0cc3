// Online softmax of attention on AMX: scores in f32 become bf16 weights. Included by attention_amx.cc.
#ifndef ORRERY_KERNELS_CPU_ATTENTION_AMX_SOFTMAX_INL_H_
#define ORRERY_KERNELS_CPU_ATTENTION_AMX_SOFTMAX_INL_H_

#include "kernels/cpu/attention_amx_buffers.h"

namespace orrery::amx {

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

}  // namespace orrery::amx

#endif  // ORRERY_KERNELS_CPU_ATTENTION_AMX_SOFTMAX_INL_H_
