#include "kernels/cpu/activation.h"

#include "kernels/cpu/row_grain.h"
#include "kernels/cpu/vector_kernels.h"

namespace orrery {

void SiluMul(ThreadPool& pool, const float* gate_up, int64_t rows, int64_t inner, RowsOut out) {
  const auto row_kernel = ActiveVectorKernels().silu_mul;
  const bool bf16 = out.dtype == DType::kBF16;
  const int64_t out_bytes = inner * static_cast<int64_t>(SizeOf(out.dtype));
  pool.ParallelFor(rows, RowGrain(inner), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const float* gate = gate_up + r * 2 * inner;
      row_kernel(gate, gate + inner, inner, static_cast<uint8_t*>(out.data) + r * out_bytes, bf16);
    }
  });
}

}  // namespace orrery
