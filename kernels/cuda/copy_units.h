// Copies of many equal pieces by number: whole pages of a pool elsewhere in it (both ends numbered), pages
// into a contiguous staging buffer (gather: sources numbered) and back (scatter: targets numbered).
#ifndef ORRERY_KERNELS_CUDA_COPY_UNITS_H_
#define ORRERY_KERNELS_CUDA_COPY_UNITS_H_

#include <cstdint>

#include "kernels/cuda/stream.h"

namespace orrery::cuda {

// Unit i goes from `source` + source_ids[i] * source_stride to `target` + target_ids[i] * target_stride; null
// ids are 0, 1, 2, ... Addresses, strides and unit_bytes are multiples of 16. No target is another's source
// or target.
struct CopyUnitsArgs {
  const void* source = nullptr;
  int64_t source_stride = 0;            // bytes
  const int32_t* source_ids = nullptr;  // [count]
  void* target = nullptr;
  int64_t target_stride = 0;            // bytes
  const int32_t* target_ids = nullptr;  // [count]
  int64_t unit_bytes = 0;
  int32_t count = 0;
};

void CopyUnits(Stream stream, const CopyUnitsArgs& args);

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_COPY_UNITS_H_
