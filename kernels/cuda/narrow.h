// f32 to bf16 or f16, rounded to nearest, ties to even: what a product with weights of that type wants of
// rows that are kept in f32.
#ifndef ORRERY_KERNELS_CUDA_NARROW_H_
#define ORRERY_KERNELS_CUDA_NARROW_H_

#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/dtype.h"

namespace orrery::cuda {

// Both arrays are aligned to 16 bytes and do not overlap.
struct NarrowArgs {
  const float* in = nullptr;  // [count]
  void* out = nullptr;        // [count]
  DType out_dtype = DType::kBF16;
  int64_t count = 0;  // a multiple of 8
};

void Narrow(Stream stream, const NarrowArgs& args);

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_NARROW_H_
