// Rows of a table by number, widened to f32: token embeddings, and the rows of a step that are sampled.
#ifndef ORRERY_KERNELS_CPU_EMBEDDING_H_
#define ORRERY_KERNELS_CPU_EMBEDDING_H_

#include <cstdint>

#include "kernels/cpu/thread_pool.h"
#include "kernels/dtype.h"

namespace orrery {

// table [any, hidden] of f32, bf16 or f16; ids [rows], each a row of the table (the caller has checked) ->
// out [rows, hidden]. Exact. The table needs only the alignment of its elements.
void GatherRows(ThreadPool& pool, const void* table, DType dtype, int64_t hidden, const int32_t* ids,
                int64_t rows, float* out);

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_EMBEDDING_H_
