#include "kernels/cpu/embedding.h"

#include <cstring>

#include "kernels/cpu/row_grain.h"
#include "kernels/cpu/vector_kernels.h"

namespace orrery {

void GatherRows(ThreadPool& pool, const void* table, DType dtype, int64_t hidden, const int32_t* ids,
                int64_t rows, float* out) {
  const VectorKernels& kernels = ActiveVectorKernels();
  const auto widen = dtype == DType::kBF16 ? kernels.widen_bf16 : kernels.widen_f16;
  const int64_t row_bytes = hidden * static_cast<int64_t>(SizeOf(dtype));
  pool.ParallelFor(rows, RowGrain(hidden), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const uint8_t* from = static_cast<const uint8_t*>(table) + ids[r] * row_bytes;
      if (dtype == DType::kF32) {
        std::memcpy(out + r * hidden, from, static_cast<size_t>(row_bytes));
      } else {
        widen(from, hidden, out + r * hidden);
      }
    }
  });
}

}  // namespace orrery
