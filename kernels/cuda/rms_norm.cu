// Budgets (registers of a thread, nothing spilled):
//   AddRmsNormKernel 48
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rms_norm.cuh"

namespace orrery::cuda {

void AddRmsNorm(Stream stream, const AddRmsNormArgs& args) {
  const int vectors = args.hidden / kRowVector;
  const int threads = std::min(1024, (vectors + 31) / 32 * 32);
  const Grid grid{static_cast<unsigned>(args.rows)};
  const size_t shared_bytes = kReduceSlots * sizeof(float);
  ForActivation(args.delta_dtype, [&](auto delta) {
    ForActivation(args.out_dtype, [&](auto out) {
      using Delta = decltype(delta);
      using Out = decltype(out);
      if (vectors <= threads) {
        Launch(&AddRmsNormKernel<Delta, Out, 1>, grid, threads, shared_bytes, stream, args);
      } else {
        Launch(&AddRmsNormKernel<Delta, Out, 2>, grid, threads, shared_bytes, stream, args);
      }
    });
  });
}

}  // namespace orrery::cuda
