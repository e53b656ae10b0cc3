// Norm, widening and rotation of one row. Included by the files compiled per instruction set.
#ifndef ORRERY_KERNELS_CPU_ROW_KERNELS_INL_H_
#define ORRERY_KERNELS_CPU_ROW_KERNELS_INL_H_

#include "kernels/cpu/simd.h"

namespace orrery::ORRERY_ISA {

ORRERY_INLINE void StoreOut(void* out, bool bf16, int64_t i, F32 v) {
  if (bf16) {
    StoreAs(static_cast<uint16_t*>(out) + i, ToBF16(v));
  } else {
    Store(static_cast<float*>(out) + i, v);
  }
}

ORRERY_INLINE void StoreOutFirst(void* out, bool bf16, int64_t i, F32 v, int64_t n) {
  if (bf16) {
    const U16 bits = ToBF16(v);
    __builtin_memcpy(static_cast<uint16_t*>(out) + i, &bits, static_cast<size_t>(n) * 2);
  } else {
    StoreFirst(static_cast<float*>(out) + i, v, n);
  }
}

void RmsNormRow(const float* x, const float* gain, float eps, int64_t n, void* out, bool out_bf16) {
  F32 squares[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int u = 0; u < 4; ++u) {
      const F32 v = Load(x + i + u * kLanes);
      squares[u] = Fma(v, v, squares[u]);
    }
  }
  for (; i < n; i += kLanes) {
    const F32 v = LoadFirst(x + i, n - i < kLanes ? n - i : kLanes);
    squares[0] = Fma(v, v, squares[0]);
  }
  const float sum = ReduceAdd((squares[0] + squares[1]) + (squares[2] + squares[3]));
  const F32 inverse = Set(1.0f / __builtin_sqrtf(sum / static_cast<float>(n) + eps));
  for (i = 0; i + kLanes <= n; i += kLanes) {
    StoreOut(out, out_bf16, i, Load(x + i) * inverse * Load(gain + i));
  }
  if (i < n) {
    const F32 v = LoadFirst(x + i, n - i) * inverse * LoadFirst(gain + i, n - i);
    StoreOutFirst(out, out_bf16, i, v, n - i);
  }
}

template <DType dtype>
void WidenRow(const void* from, int64_t n, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) Store(to + i, LoadWide<dtype>(from, i));
  for (; i < n; ++i) to[i] = LoadScalar<dtype>(from, i);
}

void NarrowBF16(const float* from, int64_t n, uint16_t* to) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) StoreAs(to + i, ToBF16(Load(from + i)));
  for (; i < n; ++i) to[i] = BF16FromF32(from[i]);
}

void NarrowF16(const float* from, int64_t n, uint16_t* to) {
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + kLanes <= n; i += kLanes)
    StoreAs(to + i, _mm512_cvtps_ph(Load(from + i), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
  for (; i + kLanes <= n; i += kLanes)
    StoreAs(to + i, _mm256_cvtps_ph(Load(from + i), _MM_FROUND_TO_NEAREST_INT));
#endif
  for (; i < n; ++i) to[i] = F16FromF32(from[i]);
}

void PairBF16(const float* first, const float* second, int64_t n, void* to) {
  uint32_t* out = static_cast<uint32_t*>(to);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    StoreAs(out + i, BF16Bits(Load(first + i)) | BF16Bits(Load(second + i)) << 16);
  }
  for (; i < n; ++i) out[i] = BF16FromF32(first[i]) | static_cast<uint32_t>(BF16FromF32(second[i])) << 16;
}

// Cosine and sine of an angle in [0, 2^24]: reduced by multiples of pi/2 in double (in two parts, the first
// so short that its product with the count loses nothing that matters), then the Taylor series on [-pi/4,
// pi/4] with an error below 1e-11, one f32 rounding at the end.
ORRERY_INLINE void CosSin(float angle, float* cosine, float* sine) {
  const double x = angle;
  const double magic = 0x1.8p52;
  const double n = (x * 0.63661977236758134308 + magic) - magic;
  double r = x - n * 0x1.921fb544p+0;
  r = r - n * 0x1.0b4611a626331p-34;
  const double s = r * r;
  double even = 1.0 / 479001600;
  even = even * s - 1.0 / 3628800;
  even = even * s + 1.0 / 40320;
  even = even * s - 1.0 / 720;
  even = even * s + 1.0 / 24;
  even = even * s - 0.5;
  even = even * s + 1.0;
  double odd = -1.0 / 39916800;
  odd = odd * s + 1.0 / 362880;
  odd = odd * s - 1.0 / 5040;
  odd = odd * s + 1.0 / 120;
  odd = odd * s - 1.0 / 6;
  odd = (odd * s + 1.0) * r;
  const int64_t quarter = static_cast<int64_t>(n);
  const double c = quarter & 1 ? odd : even;
  const double d = quarter & 1 ? even : odd;
  *cosine = static_cast<float>((quarter + 1) & 2 ? -c : c);
  *sine = static_cast<float>(quarter & 2 ? -d : d);
}

void RopeAnglesRow(int32_t position, const float* inv_freq, int64_t half, float* cosine, float* sine) {
  const float at = static_cast<float>(position);
  for (int64_t j = 0; j < half; ++j) CosSin(at * inv_freq[j], cosine + j, sine + j);
}

void RotateHead(float* head, const float* cosine, const float* sine, int64_t half) {
  int64_t j = 0;
  for (; j + kLanes <= half; j += kLanes) {
    const F32 a = Load(head + j), b = Load(head + half + j), c = Load(cosine + j), s = Load(sine + j);
    Store(head + j, Fma(a, c, -(b * s)));
    Store(head + half + j, Fma(b, c, a * s));
  }
  if (j < half) {
    const int64_t n = half - j;
    const F32 a = LoadFirst(head + j, n), b = LoadFirst(head + half + j, n);
    const F32 c = LoadFirst(cosine + j, n), s = LoadFirst(sine + j, n);
    StoreFirst(head + j, Fma(a, c, -(b * s)), n);
    StoreFirst(head + half + j, Fma(b, c, a * s), n);
  }
}

// Heads of V vectors, from load to store in registers.
template <int V>
void NormAndRotateWhole(float* head, int64_t heads, const float* gain, float eps, const float* cosine,
                        const float* sine) {
  for (int64_t h = 0; h < heads; ++h, head += V * kLanes) {
    F32 x[V];
    for (int v = 0; v < V; ++v) x[v] = Load(head + v * kLanes);
    if (gain != nullptr) {
      F32 squares[4] = {};
      for (int v = 0; v < V; ++v) squares[v % 4] = Fma(x[v], x[v], squares[v % 4]);
      const float sum = ReduceAdd((squares[0] + squares[1]) + (squares[2] + squares[3]));
      const F32 inverse = Set(1.0f / __builtin_sqrtf(sum / static_cast<float>(V * kLanes) + eps));
      for (int v = 0; v < V; ++v) x[v] = x[v] * inverse * Load(gain + v * kLanes);
    }
    for (int v = 0; v < V / 2; ++v) {
      const F32 a = x[v], b = x[v + V / 2];
      const F32 c = Load(cosine + v * kLanes), s = Load(sine + v * kLanes);
      Store(head + v * kLanes, Fma(a, c, -(b * s)));
      Store(head + (v + V / 2) * kLanes, Fma(b, c, a * s));
    }
  }
}

void NormAndRotate(float* head, int64_t heads, int64_t dim, const float* gain, float eps, const float* cosine,
                   const float* sine, int64_t half) {
  if (2 * half == dim) {
    if (dim == 4 * kLanes) return NormAndRotateWhole<4>(head, heads, gain, eps, cosine, sine);
    if (dim == 8 * kLanes) return NormAndRotateWhole<8>(head, heads, gain, eps, cosine, sine);
    if (dim == 16 * kLanes) return NormAndRotateWhole<16>(head, heads, gain, eps, cosine, sine);
  }
  for (int64_t h = 0; h < heads; ++h, head += dim) {
    if (gain != nullptr) RmsNormRow(head, gain, eps, dim, head, false);
    RotateHead(head, cosine, sine, half);
  }
}

#if defined(__AVX512F__)
// rows[i] lane j <-> rows[j] lane i.
ORRERY_INLINE void Transpose(__m512i (&rows)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 4) {
    const __m512i a = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    const __m512i b = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    const __m512i c = _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]);
    const __m512i d = _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]);
    t[i] = _mm512_unpacklo_epi64(a, c);
    t[i + 1] = _mm512_unpackhi_epi64(a, c);
    t[i + 2] = _mm512_unpacklo_epi64(b, d);
    t[i + 3] = _mm512_unpackhi_epi64(b, d);
  }
  // t[4 g + i] holds, in its part p, lane 4 p + i of rows 4 g to 4 g + 3.
  for (int i = 0; i < 4; ++i) {
    const __m512i a = _mm512_shuffle_i32x4(t[i], t[4 + i], 0x88),
                  b = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(t[i], t[4 + i], 0xdd),
                  d = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0xdd);
    rows[i] = _mm512_shuffle_i32x4(a, b, 0x88);
    rows[8 + i] = _mm512_shuffle_i32x4(a, b, 0xdd);
    rows[4 + i] = _mm512_shuffle_i32x4(c, d, 0x88);
    rows[12 + i] = _mm512_shuffle_i32x4(c, d, 0xdd);
  }
}
#endif

// Keys of 16 tokens, `stride` floats apart -> [padded / 2][16 tokens][2] bf16, zero from dim on; `padded` is
// a multiple of 32.
void KeyBlockBF16(const float* keys, int64_t stride, int64_t dim, int64_t padded, void* block) {
  uint32_t* to = static_cast<uint32_t*>(block);
#if defined(__AVX512F__)
  alignas(64) uint16_t low_words[32];
  for (int i = 0; i < 32; ++i) low_words[i] = static_cast<uint16_t>(2 * i);
  const __m512i pick = _mm512_load_si512(low_words);
  const auto lanes = [](int64_t n) { return n < 0 ? 0 : n < kLanes ? n : kLanes; };
  for (int64_t d = 0; d < padded; d += 2 * kLanes) {
    __m512i pairs[16];
    for (int t = 0; t < 16; ++t) {
      const float* key = keys + t * stride + d;
      const U32 first = BF16Bits(LoadFirst(key, lanes(dim - d)));
      const U32 second = BF16Bits(LoadFirst(key + kLanes, lanes(dim - d - kLanes)));
      pairs[t] = _mm512_permutex2var_epi16((__m512i)first, pick, (__m512i)second);
    }
    Transpose(pairs);
    for (int p = 0; p < 16; ++p) _mm512_storeu_si512(to + (d / 2 + p) * 16, pairs[p]);
  }
#else
  for (int64_t d = 0; d < padded; d += 2) {
    for (int64_t t = 0; t < 16; ++t) {
      const float* key = keys + t * stride;
      const uint32_t even = d < dim ? BF16FromF32(key[d]) : 0,
                     odd = d + 1 < dim ? BF16FromF32(key[d + 1]) : 0;
      to[d / 2 * 16 + t] = even | odd << 16;
    }
  }
#endif
}

}  // namespace orrery::ORRERY_ISA

#endif  // ORRERY_KERNELS_CPU_ROW_KERNELS_INL_H_
