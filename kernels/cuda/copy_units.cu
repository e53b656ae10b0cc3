// Budgets (registers of a thread, nothing spilled):
//   CopyUnitsKernel 40
#include <algorithm>

#include "kernels/cuda/copy_units.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows.cuh"

namespace orrery::cuda {
namespace {

constexpr int kCopyThreads = 256;
constexpr int kCopyLoads = 4;  // in flight, of a thread
constexpr int64_t kCopyBlockBytes = int64_t{16} * kCopyThreads * kCopyLoads;

// grid (units, pieces of kCopyBlockBytes of a unit, striding where there are more than a grid can have).
__global__ void __launch_bounds__(kCopyThreads) CopyUnitsKernel(const CopyUnitsArgs args, int pieces) {
  const int unit = BlockX();
  const int64_t from = args.source_ids != nullptr ? args.source_ids[unit] : unit;
  const int64_t to = args.target_ids != nullptr ? args.target_ids[unit] : unit;
  const auto* source = static_cast<const std::byte*>(args.source) + from * args.source_stride;
  auto* target = static_cast<std::byte*>(args.target) + to * args.target_stride;
  for (int64_t begin = BlockY() * kCopyBlockBytes; begin < args.unit_bytes;
       begin += pieces * kCopyBlockBytes) {
    FloatVector vectors[kCopyLoads];
    ORRERY_UNROLL
    for (int i = 0; i < kCopyLoads; ++i) {
      const int64_t offset = begin + (i * kCopyThreads + ThreadX()) * 16;
      if (offset < args.unit_bytes) vectors[i] = LoadVector<FloatVector>(source + offset);
    }
    ORRERY_UNROLL
    for (int i = 0; i < kCopyLoads; ++i) {
      const int64_t offset = begin + (i * kCopyThreads + ThreadX()) * 16;
      if (offset < args.unit_bytes) StoreVector(target + offset, vectors[i]);
    }
  }
}

}  // namespace

void CopyUnits(Stream stream, const CopyUnitsArgs& args) {
  const int64_t wanted = (args.unit_bytes + kCopyBlockBytes - 1) / kCopyBlockBytes;
  const int pieces = static_cast<int>(std::min<int64_t>(wanted, 65535));
  Launch(&CopyUnitsKernel, {static_cast<unsigned>(args.count), static_cast<unsigned>(pieces)}, kCopyThreads,
         0, stream, args, pieces);
}

}  // namespace orrery::cuda
