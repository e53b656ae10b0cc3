// The one place that launches kernels.
#ifndef ORRERY_KERNELS_CUDA_LAUNCH_CUH_
#define ORRERY_KERNELS_CUDA_LAUNCH_CUH_

#include <cstddef>
#include <type_traits>

#include "kernels/cuda/primitives.cuh"
#include "kernels/cuda/stream.h"
#ifndef __CUDACC__
#include "kernels/emulate/launch.h"
#endif

namespace orrery::cuda {

struct Grid {
  unsigned x = 1, y = 1;
};

// Runs `kernel` on grid.x * grid.y blocks of `threads` threads with `shared_bytes` of dynamic shared memory.
// An empty grid does nothing.
template <typename... Parameters>
void Launch(void (*kernel)(Parameters...), Grid grid, int threads, size_t shared_bytes, Stream stream,
            std::type_identity_t<Parameters>... arguments) {
  if (grid.x == 0 || grid.y == 0) return;
#ifdef __CUDACC__
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (shared_bytes > kWithoutAsking) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
  }
  kernel<<<dim3(grid.x, grid.y), threads, shared_bytes, stream>>>(arguments...);
#else
  emulate::Enqueue(stream, [=] {
    emulate::LaunchGrid({grid.x, grid.y, 1}, threads, shared_bytes, [=] { kernel(arguments...); });
  });
#endif
}

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_LAUNCH_CUH_
