// What prompt tokens cost to compute, as a polynomial of the prompt's length: t(n) = a + b n + c n^2
// (arXiv:2401.09670: linear layers and attention). A worker's step model has more to say of a step; this is
// what is left of it for one prompt, without what any step costs.
#ifndef ORRERY_SCHEDULER_COST_PREFILL_COST_H_
#define ORRERY_SCHEDULER_COST_PREFILL_COST_H_

#include <cstdint>

#include "scheduler/cost/step_cost.h"

namespace orrery {

struct PrefillCost {
  double per_token = 0;     // b, ms
  double per_token_sq = 0;  // c, ms

  // ms to compute `count` tokens behind `begin` whose KV is there: b count + c ((begin + count)^2 - begin^2).
  double Chunk(int64_t begin, int32_t count) const {
    const auto length = static_cast<double>(count);
    return per_token * length + per_token_sq * (2 * static_cast<double>(begin) + length) * length;
  }
};

// The slopes of `cost` around a chunk of a few thousand tokens; both 0 of a model that knows nothing (yet).
PrefillCost FitPrefill(const StepCostModel& cost);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_COST_PREFILL_COST_H_
