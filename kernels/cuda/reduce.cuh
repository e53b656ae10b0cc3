// Sums and maxima over a warp and over a block, the same in every lane or thread. The order of additions
// depends on the number of threads alone.
#ifndef ORRERY_KERNELS_CUDA_REDUCE_CUH_
#define ORRERY_KERNELS_CUDA_REDUCE_CUH_

#include "kernels/cuda/fault.h"
#include "kernels/cuda/primitives.cuh"

namespace orrery::cuda {

// How many values of shared memory a reduction over a block needs.
inline constexpr int kReduceSlots = 32;

struct Sum {
  template <typename T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};

struct Maximum {
  template <typename T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};

template <typename Operation, typename T>
__device__ __forceinline__ T WarpReduce(T value) {
  ORRERY_UNROLL
  for (int distance = 16; distance > 0; distance /= 2) {
    value = Operation()(value, ShuffleXor(value, distance));
  }
  return value;
}

// For every thread of a block of whole warps. slots: kReduceSlots values of shared memory, which may be used
// again at once.
template <typename Operation, Fault kFault = Fault::kNone, typename T>
__device__ __forceinline__ T BlockReduce(T value, T identity, T* slots) {
  const int lane = ThreadX() % 32;
  value = WarpReduce<Operation>(value);
  if (lane == 0) {
    slots[ThreadX() / 32] = value;
    if constexpr (kFault == Fault::kBarrierInBranch) SyncBlock();
  }
  if constexpr (kFault != Fault::kReadsSumsTooEarly && kFault != Fault::kBarrierInBranch) SyncBlock();
  value = WarpReduce<Operation>(lane < BlockThreads() / 32 ? slots[lane] : identity);
  SyncBlock();
  return value;
}

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_REDUCE_CUH_
