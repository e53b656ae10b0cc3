// Eight consecutive elements of a row at a time, as f32 in registers, in loads and stores of 16 bytes.
#ifndef ORRERY_KERNELS_CUDA_ROWS_CUH_
#define ORRERY_KERNELS_CUDA_ROWS_CUH_

#include "kernels/cuda/primitives.cuh"
#include "kernels/dtype.h"

namespace orrery::cuda {

inline constexpr int kRowVector = 8;

struct alignas(16) FloatVector {
  float values[4];
};

struct alignas(16) WordVector {
  uint32_t words[4];
};

template <typename T>
struct alignas(16) HalfVector {
  T values[8];
};

__device__ __forceinline__ void LoadRow(const float* from, float (&to)[kRowVector]) {
  const auto low = LoadVector<FloatVector>(from), high = LoadVector<FloatVector>(from + 4);
  ORRERY_UNROLL
  for (int i = 0; i < 4; ++i) {
    to[i] = low.values[i];
    to[4 + i] = high.values[i];
  }
}

template <typename T>
__device__ __forceinline__ void LoadRow(const T* from, float (&to)[kRowVector]) {
  const auto vector = LoadVector<HalfVector<T>>(from);
  ORRERY_UNROLL
  for (int i = 0; i < kRowVector; ++i) to[i] = ToFloat(vector.values[i]);
}

__device__ __forceinline__ void StoreRow(float* to, const float (&from)[kRowVector]) {
  StoreVector(to, FloatVector{{from[0], from[1], from[2], from[3]}});
  StoreVector(to + 4, FloatVector{{from[4], from[5], from[6], from[7]}});
}

__device__ __forceinline__ void Store(float* to, float value) { *to = value; }
__device__ __forceinline__ void Store(BF16* to, float value) { *to = ToBF16(value); }
__device__ __forceinline__ void Store(F16* to, float value) { *to = ToF16(value); }
__device__ __forceinline__ void Store(E4M3* to, float value) { *to = ToE4M3(value); }

// The same where the type is known when the kernel runs: f32, bf16 or f16.
__device__ __forceinline__ void StoreAs(DType dtype, void* to, int64_t index, float value) {
  if (dtype == DType::kBF16) {
    Store(static_cast<BF16*>(to) + index, value);
  } else if (dtype == DType::kF16) {
    Store(static_cast<F16*>(to) + index, value);
  } else {
    Store(static_cast<float*>(to) + index, value);
  }
}

template <typename T>
__device__ __forceinline__ void StoreRow(T* to, const float (&from)[kRowVector]) {
  HalfVector<T> vector;
  ORRERY_UNROLL
  for (int i = 0; i < kRowVector; ++i) Store(&vector.values[i], from[i]);
  StoreVector(to, vector);
}

// Calls f(T()) for the element type T of activations or weights of 16 bits.
template <typename Function>
void ForHalf(DType dtype, const Function& f) {
  if (dtype == DType::kF16) {
    f(F16());
  } else {
    f(BF16());
  }
}

// The same for activations of f32, bf16 or f16.
template <typename Function>
void ForActivation(DType dtype, const Function& f) {
  if (dtype == DType::kF32) {
    f(float());
  } else {
    ForHalf(dtype, f);
  }
}

// The same for attention's input, of f32 or bf16: it meets keys that are bf16 at most.
template <typename Function>
void ForQuery(DType dtype, const Function& f) {
  if (dtype == DType::kBF16) {
    f(BF16());
  } else {
    f(float());
  }
}

// Calls f(T()) for the element type T of a KV pool.
template <typename Function>
void ForKv(DType dtype, const Function& f) {
  if (dtype == DType::kE4M3) {
    f(E4M3());
  } else {
    f(BF16());
  }
}

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_ROWS_CUH_
