// The device instructions that kernels are written in, and the only place with PTX. The CPU's version of each
// is in kernels/emulate/instructions.h, which also draws the fragments. Kernel sources use these names, warps
// of 32, dynamic shared memory through ORRERY_SHARED_MEMORY, whole warps in every collective, and are
// launched through kernels/cuda/launch.cuh alone.
#ifndef ORRERY_KERNELS_CUDA_PRIMITIVES_CUH_
#define ORRERY_KERNELS_CUDA_PRIMITIVES_CUH_

#ifndef __CUDACC__

#include "kernels/emulate/instructions.h"

#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstddef>
#include <cstdint>

#define ORRERY_UNROLL _Pragma("unroll")
// Declares `name`, the block's dynamic shared memory, aligned to 128 bytes.
#define ORRERY_SHARED_MEMORY(name) extern __shared__ __align__(128) std::byte name[]

namespace orrery::cuda {

inline constexpr uint32_t kWholeWarp = 0xffffffffu;

// 16-bit floats as they lie in memory.
struct BF16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
// An 8-bit float as dtype.h describes it.
struct E4M3 {
  uint8_t bits;
};

__device__ __forceinline__ int ThreadX() { return static_cast<int>(threadIdx.x); }
__device__ __forceinline__ int BlockThreads() { return static_cast<int>(blockDim.x); }
__device__ __forceinline__ int BlockX() { return static_cast<int>(blockIdx.x); }
__device__ __forceinline__ int BlockY() { return static_cast<int>(blockIdx.y); }
__device__ __forceinline__ int GridX() { return static_cast<int>(gridDim.x); }

// Barriers of the block and of the warp; both order memory among their threads.
__device__ __forceinline__ void SyncBlock() { __syncthreads(); }
__device__ __forceinline__ void SyncWarp() { __syncwarp(); }

// The value of lane source_lane % 32, and of the lane whose number differs in the bits of lane_mask.
template <typename T>
__device__ __forceinline__ T Shuffle(T value, int source_lane) {
  return __shfl_sync(kWholeWarp, value, source_lane);
}
template <typename T>
__device__ __forceinline__ T ShuffleXor(T value, int lane_mask) {
  return __shfl_xor_sync(kWholeWarp, value, lane_mask);
}
// Bit i: the predicate of lane i.
__device__ __forceinline__ uint32_t Ballot(bool predicate) { return __ballot_sync(kWholeWarp, predicate); }
__device__ __forceinline__ int PopCount(uint32_t bits) { return __popc(bits); }

// Conversions; narrowing rounds to nearest, ties to even, and to e4m3 saturates. What is too large for f16
// (65520 and more) becomes infinite: it ends as logits that are NaN, which are an error of the request, where
// a saturated value would end as wrong text.
__device__ __forceinline__ float ToFloat(BF16 value) {
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}
__device__ __forceinline__ float ToFloat(F16 value) { return __half2float(__ushort_as_half(value.bits)); }
__device__ __forceinline__ float ToFloat(float value) { return value; }
__device__ __forceinline__ BF16 ToBF16(float value) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
}
__device__ __forceinline__ F16 ToF16(float value) { return {__half_as_ushort(__float2half_rn(value))}; }
__device__ __forceinline__ E4M3 ToE4M3(float value) {
  return {__nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3)};
}
// Two in a register, `low` in the lower half.
__device__ __forceinline__ uint32_t PackBF16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ __forceinline__ float LowBF16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float HighBF16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
// The products of pairs.
__device__ __forceinline__ uint32_t MultiplyBF16(uint32_t a, uint32_t b) {
  uint32_t product;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(product) : "r"(a), "r"(b), "r"(0x80008000u));  // plus -0
  return product;
}
__device__ __forceinline__ uint32_t BitsOf(float value) { return __float_as_uint(value); }
__device__ __forceinline__ float FloatOf(uint32_t bits) { return __uint_as_float(bits); }
// 2^x with a relative error below 2^-22; subnormal results are zero.
__device__ __forceinline__ float Exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// 16 bytes at once from and to an address aligned to 16.
template <typename Vector>
__device__ __forceinline__ Vector LoadVector(const void* from) {
  static_assert(sizeof(Vector) == 16);
  union {
    uint4 raw;
    Vector vector;
  } value;
  value.raw = *static_cast<const uint4*>(from);
  return value.vector;
}
template <typename Vector>
__device__ __forceinline__ void StoreVector(void* to, const Vector& vector) {
  static_assert(sizeof(Vector) == 16);
  union {
    uint4 raw;
    Vector vector;
  } value;
  value.vector = vector;
  *static_cast<uint4*>(to) = value.raw;
}

// Returns the value before.
template <typename T>
__device__ __forceinline__ T AtomicAdd(T* target, T value) {
  if constexpr (sizeof(T) == 8) {
    return static_cast<T>(
        atomicAdd(reinterpret_cast<unsigned long long*>(target), static_cast<unsigned long long>(value)));
  } else {
    return atomicAdd(target, value);
  }
}

// cp.async: starts a copy of 16 bytes (zeros unless `valid`) to shared memory; both addresses are aligned to
// 16. CommitCopies closes the thread's group of copies; WaitCopies waits until at most kGroupsInFlight of the
// last groups are open. Other threads see the bytes after a barrier.
__device__ __forceinline__ void CopyAsync16(void* shared_target, const void* source, bool valid) {
  const auto target = static_cast<uint32_t>(__cvta_generic_to_shared(shared_target));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(target), "l"(source), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kGroupsInFlight>
__device__ __forceinline__ void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsInFlight) : "memory");
}

// ldmatrix.x4: lane 8 m + r gives the address of row r (8 values of 16 bits) of matrix m, which comes back in
// registers[m], transposed or as it is.
__device__ __forceinline__ void LoadMatrix4(uint32_t registers[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void LoadMatrix4Transposed(uint32_t registers[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(address)
               : "memory");
}

// movmatrix: the transpose of an 8 x 8 matrix that the warp holds.
__device__ __forceinline__ uint32_t TransposeMatrix(uint32_t pair) {
  uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
  return result;
}

// mma.m16n8k16: C += A B with A [16, 16], B [16, 8] of bfloat16 and C [16, 8] in f32.
__device__ __forceinline__ void MultiplyAdd(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace orrery::cuda

#endif  // __CUDACC__
#endif  // ORRERY_KERNELS_CUDA_PRIMITIVES_CUH_
