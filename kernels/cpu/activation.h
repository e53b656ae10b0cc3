// The gated activation of a feed-forward block: out = silu(gate) * up, silu(g) = g / (1 + exp(-g)), f32 with
// a relative error below 1e-6 (absolute 1e-37 where the result is subnormal).
#ifndef ORRERY_KERNELS_CPU_ACTIVATION_H_
#define ORRERY_KERNELS_CPU_ACTIVATION_H_

#include <cstdint>

#include "kernels/cpu/norm.h"
#include "kernels/cpu/thread_pool.h"

namespace orrery {

// gate_up [rows, 2 * inner], gate before up in every row -> out [rows, inner].
void SiluMul(ThreadPool& pool, const float* gate_up, int64_t rows, int64_t inner, RowsOut out);

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_ACTIVATION_H_
