#include "kernels/cpu/norm.h"

#include "kernels/cpu/row_grain.h"
#include "kernels/cpu/vector_kernels.h"

namespace orrery {

void RmsNorm(ThreadPool& pool, const float* x, int64_t rows, int64_t hidden, RmsGain norm, RowsOut out) {
  const auto row_kernel = ActiveVectorKernels().rms_norm;
  const bool bf16 = out.dtype == DType::kBF16;
  const int64_t out_bytes = hidden * static_cast<int64_t>(SizeOf(out.dtype));
  pool.ParallelFor(rows, RowGrain(hidden), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      row_kernel(x + r * hidden, norm.gain, norm.eps, hidden, static_cast<uint8_t*>(out.data) + r * out_bytes,
                 bf16);
    }
  });
}

}  // namespace orrery
