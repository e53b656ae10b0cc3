// A table of step times put together from measured kernels (kernel_tables.h) for a model that nobody has run:
//   tokens   layers x (QKV, output, gate and up, down projection, two all-reduces where there are ranks, and
//            the small kernels) + output head of one row
//   prefill  layers x attention of one prompt, over its length squared
//   decode   layers x attention + output head of the other rows, by sequences and context
// A matrix product of a size that was not measured is interpolated in N and K between those that were, and
// beyond the largest grows in proportion. Products of an odd number of rows, which the tables have just
// past the edge of a tile, would spread the edge over the whole gap and are left out. Where times fall with
// size, neighbours are averaged, and more sequences never take less than fewer. Small kernels (two norms
// with the residual, rotation, KV write, activation) take 2 us each and the time of their bytes at the rate
// at which the largest one-row product reads weights. That reproduces the published fits, as tests hold it
// to. Not in it: embedding, the exchange of logits between ranks, sampling, and all of the host.
#ifndef ORRERY_SERVER_COST_KERNEL_PROFILE_H_
#define ORRERY_SERVER_COST_KERNEL_PROFILE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "scheduler/cost/table_cost.h"

namespace orrery {

struct KernelProfile {
  CostTable table;
  // What 90 % of the memory of all ranks holds besides the weights; 0 where the GPU's memory is not known.
  int64_t kv_capacity_tokens = 0;
};

// `name` is GPU/MODEL/tpN/WEIGHTS[/KV]: MODEL as in model_shape.h, WEIGHTS a gemm_dtype and KV a
// kv_cache_dtype (default bfloat16) of the tables. INVALID_ARGUMENT says what is not there or does not fit.
absl::StatusOr<KernelProfile> LoadKernelProfile(const std::string& folder, const std::string& name);

}  // namespace orrery

#endif  // ORRERY_SERVER_COST_KERNEL_PROFILE_H_
