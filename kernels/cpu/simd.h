// Float vectors as wide as the file that includes this is compiled for: 16 lanes with AVX-512, 8 with AVX2
// and FMA, 4 otherwise (plain C++ vector extensions). Only for the files compiled once per instruction set;
// every name lives in a namespace of that set, and everything is always inlined, so that no copy made for a
// newer machine can be linked into code that an older one runs.
#ifndef ORRERY_KERNELS_CPU_SIMD_H_
#define ORRERY_KERNELS_CPU_SIMD_H_

#include <cstdint>

#include "kernels/dtype.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define ORRERY_ISA avx512
#elif defined(__AVX2__)
#define ORRERY_ISA avx2
#else
#define ORRERY_ISA scalar
#endif

#define ORRERY_INLINE [[gnu::always_inline]] inline

namespace orrery::ORRERY_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float F32 __attribute__((vector_size(4 * kLanes)));
typedef int32_t I32 __attribute__((vector_size(4 * kLanes)));
typedef uint32_t U32 __attribute__((vector_size(4 * kLanes)));
typedef uint16_t U16 __attribute__((vector_size(2 * kLanes)));

template <typename V>
ORRERY_INLINE V LoadAs(const void* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof(V));
  return v;
}
template <typename V>
ORRERY_INLINE void StoreAs(void* to, V v) {
  __builtin_memcpy(to, &v, sizeof(V));
}
ORRERY_INLINE F32 Load(const float* from) { return LoadAs<F32>(from); }
ORRERY_INLINE void Store(float* to, F32 v) { StoreAs(to, v); }
ORRERY_INLINE F32 Set(float x) { return F32{} + x; }

// The first n lanes, n in [0, kLanes]; the others read as zero / are left alone.
ORRERY_INLINE F32 LoadFirst(const float* from, int64_t n) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), from);
#else
  F32 v = {};
  __builtin_memcpy(&v, from, static_cast<size_t>(n) * 4);
  return v;
#endif
}
ORRERY_INLINE void StoreFirst(float* to, F32 v, int64_t n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << n) - 1), v);
#else
  __builtin_memcpy(to, &v, static_cast<size_t>(n) * 4);
#endif
}

ORRERY_INLINE F32 Fma(F32 a, F32 b, F32 c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

// b where either is NaN.
ORRERY_INLINE F32 Max(F32 a, F32 b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

ORRERY_INLINE I32 LaneIndex() {
  I32 v;
  for (int i = 0; i < kLanes; ++i) v[i] = i;
  return v;
}
ORRERY_INLINE float ReduceAdd(F32 v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(v);
#else
  float lanes[kLanes];
  Store(lanes, v);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
#endif
}
ORRERY_INLINE float ReduceMax(F32 v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(v);
#else
  float lanes[kLanes];
  Store(lanes, v);
  float best = lanes[0];
  for (int i = 1; i < kLanes; ++i) best = lanes[i] > best ? lanes[i] : best;
  return best;
#endif
}

// kLanes elements of the given type, widened exactly.
template <DType dtype>
ORRERY_INLINE F32 LoadWide(const void* data, int64_t index) {
  if constexpr (dtype == DType::kF32) {
    return Load(static_cast<const float*>(data) + index);
  } else {
    const uint16_t* from = static_cast<const uint16_t*>(data) + index;
    if constexpr (dtype == DType::kBF16) {
      return (F32)(__builtin_convertvector(LoadAs<U16>(from), U32) << 16);
    } else {
#if defined(__AVX512F__)
      return _mm512_cvtph_ps(LoadAs<__m256i>(from));
#elif defined(__AVX2__)
      return _mm256_cvtph_ps(LoadAs<__m128i>(from));
#else
      F32 v;
      for (int i = 0; i < kLanes; ++i) v[i] = F32FromF16(from[i]);
      return v;
#endif
    }
  }
}

template <DType dtype>
ORRERY_INLINE float LoadScalar(const void* data, int64_t index) {
  if constexpr (dtype == DType::kF32) return static_cast<const float*>(data)[index];
  const uint16_t bits = static_cast<const uint16_t*>(data)[index];
  return dtype == DType::kBF16 ? F32FromBF16(bits) : F32FromF16(bits);
}

// Round to nearest even, NaN stays NaN: lane by lane what BF16FromF32 does, in the low half of each lane.
ORRERY_INLINE U32 BF16Bits(F32 v) {
  const U32 bits = (U32)v;
  const U32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const U32 quieted = (bits >> 16) | 0x40u;
  return (v == v) ? rounded : quieted;
}
ORRERY_INLINE U16 ToBF16(F32 v) { return __builtin_convertvector(BF16Bits(v), U16); }

// exp(x): relative error below 2e-7 where the result is normal; 0 below -103.98, infinity above 88.73, NaN
// for NaN.
ORRERY_INLINE F32 Exp(F32 x) {
  x = (x < Set(-105.0f)) ? Set(-105.0f) : x;  // in this order a NaN stays
  x = (x > Set(89.5f)) ? Set(89.5f) : x;
  const F32 magic = Set(0x1.8p23f);  // adding it rounds to an integer in the low bits
  const F32 shifted = Fma(x, Set(1.44269504088896341f), magic);
  const F32 n = shifted - magic;
  F32 r = Fma(n, Set(-0x1.62e4p-1f), x);        // ln 2 in two parts: the first product is exact
  r = Fma(n, Set(-0x1.7f7d1cf79abcap-20f), r);  // |r| <= 0.3466
  F32 p = Set(1.0f / 5040);
  p = Fma(p, r, Set(1.0f / 720));
  p = Fma(p, r, Set(1.0f / 120));
  p = Fma(p, r, Set(1.0f / 24));
  p = Fma(p, r, Set(1.0f / 6));
  p = Fma(p, r, Set(0.5f));
  p = Fma(p, r, Set(1.0f));
  p = Fma(p, r, Set(1.0f));
#if defined(__AVX512F__)
  return _mm512_scalef_ps(p, n);
#else
  // 2^n as two factors, either of which is a normal number.
  const I32 exponent = (I32)shifted - (I32)magic;
  const I32 half = exponent >> 1;
  const F32 first = (F32)((half + 127) << 23);
  const F32 second = (F32)((exponent - half + 127) << 23);
  return p * first * second;
#endif
}

}  // namespace orrery::ORRERY_ISA

#endif  // ORRERY_KERNELS_CPU_SIMD_H_
