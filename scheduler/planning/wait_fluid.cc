#include "scheduler/planning/wait_fluid.h"

#include <cmath>

#include "scheduler/base/check.h"
#include "scheduler/base/text.h"

namespace orrery {
namespace {

double TokenIterations(const WaitType& type) {
  return (type.output_tokens + 1.0) * (type.prompt_tokens + type.output_tokens / 2.0);
}

bool Good(double value) { return std::isfinite(value) && value >= 0.0; }

}  // namespace

absl::StatusOr<WaitEquilibrium> SolveWaitFluid(const WaitFluidInput& in) {
  if (!Good(in.base_s) || in.base_s == 0.0) return absl::InvalidArgumentError("base_s must be above 0");
  if (!Good(in.per_token_s)) return absl::InvalidArgumentError("per_token_s must not be negative");
  WaitEquilibrium e;
  double work = 0.0;  // token-iterations that arrive in a second
  for (size_t j = 0; j < in.types.size(); ++j) {
    const WaitType& type = in.types[j];
    if (!Good(type.prompt_tokens) || !Good(type.output_tokens) || !Good(type.arrival_rate_per_s))
      return absl::InvalidArgumentError(Cat("types[", j, "]: lengths and rate must be finite, not negative"));
    e.token_iterations.push_back(TokenIterations(type));
    work += type.arrival_rate_per_s * e.token_iterations.back();
  }
  e.load = in.per_token_s * work;
  if (e.load >= 1.0)
    return absl::FailedPreconditionError(Cat("throughput: load ", e.load, " must be below 1"));
  e.iteration_s = in.base_s / (1.0 - e.load);
  for (const WaitType& type : in.types) e.per_stage.push_back(type.arrival_rate_per_s * e.iteration_s);
  e.kv_tokens = e.iteration_s * work;
  if (e.kv_tokens > in.kv_capacity_tokens) {
    return absl::FailedPreconditionError(Cat("memory: the equilibrium holds ", e.kv_tokens,
                                             " tokens, kv_capacity_tokens is ", in.kv_capacity_tokens));
  }
  return e;
}

WaitIteration JudgeThresholds(const WaitFluidInput& in, const std::vector<double>& thresholds) {
  ORRERY_CHECK(thresholds.size() == in.types.size());
  WaitIteration iteration;
  for (size_t j = 0; j < thresholds.size(); ++j)
    iteration.kv_tokens += thresholds[j] * TokenIterations(in.types[j]);
  iteration.iteration_s = in.base_s + in.per_token_s * iteration.kv_tokens;
  iteration.stable = iteration.kv_tokens <= in.kv_capacity_tokens;
  for (size_t j = 0; j < thresholds.size(); ++j) {
    const double arrivals = in.types[j].arrival_rate_per_s * iteration.iteration_s;
    iteration.stable = iteration.stable && arrivals < thresholds[j];
  }
  return iteration;
}

}  // namespace orrery
