// The fluid model of WAIT: what a worker's iterations settle to, and which admission thresholds are safe.
// arXiv:2504.11320. An iteration takes d0 + d1 K with K tokens of KV cache in its batch; a request of type j
// passes output_j + 1 stages and w_j = (output_j + 1) (prompt_j + output_j / 2) token-iterations.
#ifndef ORRERY_SCHEDULER_PLANNING_WAIT_FLUID_H_
#define ORRERY_SCHEDULER_PLANNING_WAIT_FLUID_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace orrery {

struct WaitType {
  double prompt_tokens = 0.0, output_tokens = 0.0;
  double arrival_rate_per_s = 0.0;
};

struct WaitFluidInput {
  double base_s = 0.0;       // d0 > 0
  double per_token_s = 0.0;  // d1 >= 0
  double kv_capacity_tokens = 0.0;
  std::vector<WaitType> types;
};

struct WaitEquilibrium {
  std::vector<double> token_iterations;  // w_j
  double load = 0.0;                     // d1 sum rate_j w_j, below 1
  double iteration_s = 0.0;              // d0 / (1 - load)
  std::vector<double> per_stage;         // n_j: requests of the type at each stage
  double kv_tokens = 0.0;                // in the batch
};

// FAILED_PRECONDITION names "throughput" (load >= 1) or "memory" (more than kv_capacity_tokens).
absl::StatusOr<WaitEquilibrium> SolveWaitFluid(const WaitFluidInput& input);

// One iteration with n_j of type j at every stage.
struct WaitIteration {
  double kv_tokens = 0.0, iteration_s = 0.0;
  bool stable = false;  // every type arrives slower than n_j an iteration, and the batch fits
};
// REQUIRES: one threshold for each type.
WaitIteration JudgeThresholds(const WaitFluidInput& input, const std::vector<double>& thresholds);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_PLANNING_WAIT_FLUID_H_
