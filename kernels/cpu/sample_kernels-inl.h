// Passes over one row of logits or weights. Included by the files compiled per instruction set.
#ifndef ORRERY_KERNELS_CPU_SAMPLE_KERNELS_INL_H_
#define ORRERY_KERNELS_CPU_SAMPLE_KERNELS_INL_H_

#include "kernels/cpu/simd.h"

namespace orrery::ORRERY_ISA {

constexpr int64_t kSumBlock = 256;  // terms that are added in f32 before they go to a double

float MaxLogit(const float* x, int64_t n, bool* broken) {
  const F32 lowest = Set(-__builtin_inff());
  F32 best[4] = {lowest, lowest, lowest, lowest};
  I32 bad = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int u = 0; u < 4; ++u) {
      const F32 v = Load(x + i + u * kLanes);
      bad |= (v != v);
      best[u] = Max(v, best[u]);
    }
  }
  const F32 all = Max(Max(best[0], best[1]), Max(best[2], best[3]));
  float result = ReduceMax(all);
  bool nan = false;
  for (int lane = 0; lane < kLanes; ++lane) nan |= bad[lane] != 0;
  for (; i < n; ++i) {
    nan |= x[i] != x[i];
    result = x[i] > result ? x[i] : result;
  }
  *broken = nan || result == __builtin_inff();
  return result;
}

// Calls term(i, count) -> vector of `count` terms for every vector of the row and adds them up.
template <typename Term>
ORRERY_INLINE double SumOver(int64_t n, Term term) {
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    const int64_t end = n - begin < kSumBlock ? n : begin + kSumBlock;
    F32 a = {}, b = {};
    int64_t i = begin;
    for (; i + 2 * kLanes <= end; i += 2 * kLanes) {
      a += term(i, kLanes);
      b += term(i + kLanes, kLanes);
    }
    for (; i < end; i += kLanes) a += term(i, end - i < kLanes ? end - i : kLanes);
    sum += static_cast<double>(ReduceAdd(a + b));
  }
  return sum;
}

ORRERY_INLINE F32 LoadOr(const float* x, int64_t i, int64_t count, float other) {
  if (count == kLanes) return Load(x + i);
  F32 v = Set(other);
  __builtin_memcpy(&v, x + i, static_cast<size_t>(count) * 4);
  return v;
}

double SumExp(const float* x, int64_t n, float shift) {
  return SumOver(
      n, [&](int64_t i, int64_t count)
             __attribute__((always_inline)) { return Exp(LoadOr(x, i, count, -__builtin_inff()) - shift); });
}

double ExpWeights(const float* x, int64_t n, float shift, float scale, float* w) {
  return SumOver(
      n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        const F32 v = Exp((LoadOr(x, i, count, -__builtin_inff()) - shift) * scale);
        if (count == kLanes) {
          Store(w + i, v);
        } else {
          StoreFirst(w + i, v, count);
        }
        return v;
      });
}

int64_t CountAtLeast(const float* x, int64_t n, float least, double* sum) {
  int64_t count = 0;
  *sum = SumOver(
      n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        const F32 v = LoadOr(x, i, lanes, __builtin_nanf(""));
#if defined(__AVX512F__)
        const __mmask16 in = _mm512_cmp_ps_mask(v, Set(least), _CMP_GE_OQ);
        count += __builtin_popcount(in);
        return static_cast<F32>(_mm512_maskz_mov_ps(in, v));
#else
    const I32 in = v >= Set(least);
    const I32 ones = in & 1;
    int32_t lanes_in = 0;
    for (int lane = 0; lane < kLanes; ++lane) lanes_in += ones[lane];
    count += lanes_in;
    return (F32)((I32)v & in);
#endif
      });
  return count;
}

int64_t KeepBetween(const float* x, int64_t n, float least, float below, float* out) {
  int64_t kept = 0;
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + kLanes <= n; i += kLanes) {
    const __m512 v = Load(x + i);
    const __mmask16 in =
        _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(v, Set(least), _CMP_GE_OQ), v, Set(below), _CMP_LT_OQ);
    _mm512_storeu_ps(out + kept, _mm512_maskz_compress_ps(in, v));
    kept += __builtin_popcount(in);
  }
#endif
  for (; i < n; ++i) {
    const float v = x[i];
    out[kept] = v;
    kept += v >= least && v < below;
  }
  return kept;
}

int64_t IdsAtLeast(const float* x, int64_t n, float least, int64_t limit, int32_t* ids) {
  int64_t found = 0;
  int64_t i = 0;
  for (; i + kLanes <= n && found < limit; i += kLanes) {
    const F32 v = Load(x + i);
#if defined(__AVX512F__)
    const __mmask16 in = _mm512_cmp_ps_mask(v, Set(least), _CMP_GE_OQ);
    if (in == 0) continue;
    const __m512i index = (__m512i)(LaneIndex() + static_cast<int32_t>(i));
    _mm512_storeu_si512(ids + found, _mm512_maskz_compress_epi32(in, index));
    found += __builtin_popcount(in);
#else
    const I32 in = v >= Set(least);
    for (int lane = 0; lane < kLanes; ++lane) {
      ids[found] = static_cast<int32_t>(i + lane);
      found += in[lane] & 1;
    }
#endif
  }
  for (; i < n && found < limit; ++i) {
    if (x[i] >= least) ids[found++] = static_cast<int32_t>(i);
  }
  return found < limit ? found : limit;
}

}  // namespace orrery::ORRERY_ISA

#endif  // ORRERY_KERNELS_CPU_SAMPLE_KERNELS_INL_H_
