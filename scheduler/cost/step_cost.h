// Predicted time of a step from its composition. Policies believe one instance, a simulator may obey another.
#ifndef ORRERY_SCHEDULER_COST_STEP_COST_H_
#define ORRERY_SCHEDULER_COST_STEP_COST_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "scheduler/base/time.h"
#include "scheduler/types/step_plan.h"
#include "scheduler/types/step_shape.h"

namespace orrery {

StepShape ShapeOf(const StepPlan& plan);

class StepCostModel {
 public:
  virtual ~StepCostModel() = default;
  // 0 for an empty shape; never negative.
  virtual Duration Predict(const StepShape& shape) const = 0;
  // A step as measured; default: the model does not learn.
  virtual void Observe(const StepShape&, Duration) {}
};

// Milliseconds and tokens, as in the published fits:
//   max(alpha of the phases present) + per_seq * decodes + per_kv_token * decode_context
//   + per_token * prefill_tokens + per_token_sq * prefill_squares
struct LinearCostOptions {
  double alpha_decode = 0, per_seq = 0, per_kv_token = 0;
  double alpha_prefill = 0, per_token = 0, per_token_sq = 0;
};
std::unique_ptr<StepCostModel> NewLinearCost(const LinearCostOptions& options);

// "constant:MS", "tile:c=MS,a=MS,b0=TOKENS" (c + a * ceil(tokens / b0); arXiv:2504.07347),
// "linear:alpha_decode=..,per_seq=..,per_kv_token=..,alpha_prefill=..,per_token=..,per_token_sq=..",
// "table:..." (table_cost.h), or "online[:PRIOR]" (online_cost.h), PRIOR one of the others.
// Profiles in files are read elsewhere and arrive as numbers.
absl::StatusOr<std::unique_ptr<StepCostModel>> ParseStepCost(std::string_view text);
// The form that ParseStepCost reads back to the same numbers.
std::string FormatLinearCost(const LinearCostOptions& options);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_COST_STEP_COST_H_
