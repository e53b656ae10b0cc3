// A lower bound of the program of hindsight.h without a solver, for instances its linear program is too large
// for: the Lagrangian dual of its memory rows. With a price p_r >= 0 on a token-round of memory,
//
//   L(p) = sum_i min_t [ t + o_i - a_i + sum_{t < r <= t + o_i} p_r (s_i + r - t) ]  -  M sum_r p_r
//
// bounds every schedule from below, whatever the prices, and the best prices give the value of the linear
// program itself. They are climbed to by the volume algorithm (Barahona and Anbil, Math. Program. 87, 2000):
// steps along the average of the subgradients, which tends to what the relaxation holds in each round.
#ifndef ORRERY_SCHEDULER_PLANNING_DUAL_BOUND_H_
#define ORRERY_SCHEDULER_PLANNING_DUAL_BOUND_H_

#include <functional>

#include "scheduler/planning/unit_step.h"

namespace orrery {

// `rounds`: after which prices are 0: at least the end of a good schedule. O(n * rounds) a climb,
// before each of which `go_on` is asked.
// REQUIRES: ValidateUnitInstance(instance).ok().
double DualBound(const UnitInstance& instance, int64_t rounds, int climbs,
                 const std::function<bool()>& go_on = nullptr);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_PLANNING_DUAL_BOUND_H_
