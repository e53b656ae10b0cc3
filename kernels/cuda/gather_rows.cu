// Budgets (registers of a thread, nothing spilled):
//   GatherRowsKernel 32
#include <algorithm>

#include "kernels/cuda/gather_rows.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows.cuh"

namespace orrery::cuda {
namespace {

// One block per row.
template <typename T>
__global__ void __launch_bounds__(256) GatherRowsKernel(const GatherRowsArgs args) {
  const T* from = static_cast<const T*>(args.table) + int64_t{args.ids[BlockX()]} * args.hidden;
  float* to = args.out + int64_t{BlockX()} * args.hidden;
  for (int column = ThreadX() * kRowVector; column < args.hidden; column += BlockThreads() * kRowVector) {
    float x[kRowVector];
    LoadRow(from + column, x);
    StoreRow(to + column, x);
  }
}

}  // namespace

void GatherRows(Stream stream, const GatherRowsArgs& args) {
  const Grid grid{static_cast<unsigned>(args.rows)};
  const int threads = std::min(256, (args.hidden / kRowVector + 31) / 32 * 32);
  ForActivation(args.dtype, [&](auto element) {
    Launch(&GatherRowsKernel<decltype(element)>, grid, threads, 0, stream, args);
  });
}

}  // namespace orrery::cuda
