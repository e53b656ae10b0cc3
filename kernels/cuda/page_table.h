// The block tables of all sequences stay on the device; of a step comes what has changed in them.
#ifndef ORRERY_KERNELS_CUDA_PAGE_TABLE_H_
#define ORRERY_KERNELS_CUDA_PAGE_TABLE_H_

#include <cstdint>

#include "kernels/cuda/stream.h"

namespace orrery::cuda {

// pages [from, from + count) go to table [to, to + count).
struct PageRun {
  int64_t to = 0;
  int32_t from = 0;
  int32_t count = 0;
};

// All pointers are the device's. Runs do not overlap.
struct UpdatePageTableArgs {
  int32_t* table = nullptr;
  const int32_t* pages = nullptr;
  const PageRun* runs = nullptr;
  int32_t num_runs = 0;
};

void UpdatePageTable(Stream stream, const UpdatePageTableArgs& args);

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_PAGE_TABLE_H_
