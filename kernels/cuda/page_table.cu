// Budgets (registers of a thread, nothing spilled):
//   UpdatePageTableKernel 32
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/page_table.h"

namespace orrery::cuda {
namespace {

// Most runs are one page of a sequence that decodes; a prompt's are hundreds.
constexpr int kUpdateThreads = 128;

// One block per run.
__global__ void __launch_bounds__(kUpdateThreads) UpdatePageTableKernel(const UpdatePageTableArgs args) {
  const PageRun run = args.runs[BlockX()];
  for (int i = ThreadX(); i < run.count; i += BlockThreads()) {
    args.table[run.to + i] = args.pages[run.from + i];
  }
}

}  // namespace

void UpdatePageTable(Stream stream, const UpdatePageTableArgs& args) {
  Launch(&UpdatePageTableKernel, {static_cast<unsigned>(args.num_runs)}, kUpdateThreads, 0, stream, args);
}

}  // namespace orrery::cuda
