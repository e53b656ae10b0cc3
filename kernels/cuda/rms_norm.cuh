// The kernel behind rms_norm.h.
#ifndef ORRERY_KERNELS_CUDA_RMS_NORM_CUH_
#define ORRERY_KERNELS_CUDA_RMS_NORM_CUH_

#include <cmath>

#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/rows.cuh"

namespace orrery::cuda {

// One block per row, which stays in registers: kVectors times eight elements a thread.
template <typename Delta, typename Out, int kVectors, Fault kFault = Fault::kNone>
__global__ void __launch_bounds__(1024) AddRmsNormKernel(const AddRmsNormArgs args) {
  ORRERY_SHARED_MEMORY(shared);
  const int64_t row = int64_t{BlockX()} * args.hidden;
  float* const residual = args.residual + row;
  float x[kVectors][kRowVector];
  float squares = 0.0f;
  ORRERY_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const int column = (v * BlockThreads() + ThreadX()) * kRowVector;
    if (column >= args.hidden) break;
    LoadRow(residual + column, x[v]);
    if (args.delta != nullptr) {
      float delta[kRowVector];
      LoadRow(static_cast<const Delta*>(args.delta) + row + column, delta);
      ORRERY_UNROLL
      for (int i = 0; i < kRowVector; ++i) x[v][i] += delta[i];
      StoreRow(residual + column, x[v]);
    }
    ORRERY_UNROLL
    for (int i = 0; i < kRowVector; ++i) squares += x[v][i] * x[v][i];
  }
  const float total = BlockReduce<Sum, kFault>(squares, 0.0f, reinterpret_cast<float*>(shared));
  const float scale = 1.0f / sqrtf(total / static_cast<float>(args.hidden) + args.eps);
  ORRERY_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const int column = (v * BlockThreads() + ThreadX()) * kRowVector;
    if (column >= args.hidden) break;
    float gain[kRowVector];
    LoadRow(args.gain + column, gain);
    ORRERY_UNROLL
    for (int i = 0; i < kRowVector; ++i) x[v][i] *= scale * gain[i];
    StoreRow(static_cast<Out*>(args.out) + row + column, x[v]);
  }
}

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_RMS_NORM_CUH_
