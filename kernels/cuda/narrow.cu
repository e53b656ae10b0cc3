// Budgets (registers of a thread, nothing spilled):
//   NarrowKernel 32
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/narrow.h"
#include "kernels/cuda/rows.cuh"

namespace orrery::cuda {
namespace {

constexpr int kNarrowThreads = 256;

// Eight elements per thread.
template <typename Out>
__global__ void __launch_bounds__(kNarrowThreads) NarrowKernel(const NarrowArgs args) {
  const int64_t element = (int64_t{BlockX()} * kNarrowThreads + ThreadX()) * kRowVector;
  if (element >= args.count) return;
  float x[kRowVector];
  LoadRow(args.in + element, x);
  StoreRow(static_cast<Out*>(args.out) + element, x);
}

}  // namespace

void Narrow(Stream stream, const NarrowArgs& args) {
  const int64_t vectors = args.count / kRowVector;
  const Grid grid{static_cast<unsigned>((vectors + kNarrowThreads - 1) / kNarrowThreads)};
  ForHalf(args.out_dtype,
          [&](auto out) { Launch(&NarrowKernel<decltype(out)>, grid, kNarrowThreads, 0, stream, args); });
}

}  // namespace orrery::cuda
