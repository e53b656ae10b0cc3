// Budgets (registers of a thread, nothing spilled):
//   SiluMulKernel 40
#include <cmath>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/silu_mul.h"

namespace orrery::cuda {
namespace {

constexpr int kSiluThreads = 256;

// Eight elements of out per thread.
template <typename In, typename Out>
__global__ void __launch_bounds__(kSiluThreads) SiluMulKernel(const SiluMulArgs args) {
  const int64_t element = (int64_t{BlockX()} * kSiluThreads + ThreadX()) * kRowVector;
  if (element >= args.rows * args.inner) return;
  const int64_t row = element / args.inner;
  const auto* gate_row = static_cast<const In*>(args.gate_up) + row * args.inner + element;
  float gate[kRowVector], up[kRowVector];
  LoadRow(gate_row, gate);
  LoadRow(gate_row + args.inner, up);
  ORRERY_UNROLL
  for (int i = 0; i < kRowVector; ++i) up[i] *= gate[i] / (1.0f + expf(-gate[i]));
  StoreRow(static_cast<Out*>(args.out) + element, up);
}

}  // namespace

void SiluMul(Stream stream, const SiluMulArgs& args) {
  const int64_t vectors = args.rows * args.inner / kRowVector;
  const Grid grid{static_cast<unsigned>((vectors + kSiluThreads - 1) / kSiluThreads)};
  ForActivation(args.dtype, [&](auto in) {
    ForActivation(args.out_dtype, [&](auto out) {
      Launch(&SiluMulKernel<decltype(in), decltype(out)>, grid, kSiluThreads, 0, stream, args);
    });
  });
}

}  // namespace orrery::cuda
