// What the best schedule would have been, had everything been known: the optimum of the unit-step model where
// a solver can prove it, lower bounds where it cannot. arXiv:2502.07115, section 3:
//
//   min  sum_i sum_t (t + o_i - a_i) x_it              x_it = 1: request i starts at round t >= a_i
//   s.t. sum_t x_it = 1                                 for every request i
//        sum_i sum_{t < r <= t + o_i} (s_i + r - t) x_it <= M     for every round r
//        x binary (relaxed: the LP bound)
//
// The LP is the one over the full horizon max a + sum o, found on a shorter one: the prices of a solved short
// program price every column left out, and the horizon grows until none of them is wanted.
//
// The exact part starts from the best schedule a local search finds. It keeps the columns that a better
// schedule can use, by their reduced costs, and adds rounds of clique cuts (start_cliques.h), each of which
// raises the bound and drops more columns; what is left goes to branch and bound. Where the bound, rounded
// up, meets the schedule there is nothing to branch on.
#ifndef ORRERY_SCHEDULER_PLANNING_HINDSIGHT_H_
#define ORRERY_SCHEDULER_PLANNING_HINDSIGHT_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/planning/unit_step.h"
#include "scheduler/solver/solver.h"

namespace orrery {

struct HindsightOptions {
  SolveLimits limits;  // of each solve
  // Asked before each solve what is left of the time a person gives; null: no limit. A clock of the caller's.
  std::function<double()> seconds_left;
  bool exact = true;                // false: bounds and policies alone
  size_t max_requests = 64;         // of an instance that the integer program is tried on
  size_t max_lp_terms = 6'000'000;  // of an LP that is tried: about n * horizon * mean output
  int dual_climbs = 3000;           // of dual_bound.h where there is no LP; fewer on large instances
  int search_trials = 20'000;       // orders the local search of the incumbent looks at
  int cut_rounds = 40;              // of clique cuts at most
};

struct HindsightSchedule {
  int64_t total_latency = 0;
  std::vector<int64_t> starts;  // by request
};

struct HindsightPlan {
  std::optional<HindsightSchedule> optimum;
  std::optional<double> lp_bound;
  // Where there is no LP: at most its value, on the paper's models within 0.2 %.
  std::optional<double> dual_bound;
  int64_t area_bound = 0;
  int64_t lower_bound = 0;  // the best that is proven, whatever proved it
  HindsightSchedule best;   // the best schedule known; the optimum if there is one
  HindsightSchedule mc_sf, fcfs;
  int64_t nodes = 0;
  // Why what was asked for is not there, the optimum or a bound by prices, in one line; else empty.
  std::string unproven;
};

// Errors: those of ValidateUnitInstance, and INTERNAL.
absl::StatusOr<HindsightPlan> PlanHindsight(const UnitInstance& instance,
                                            const HindsightOptions& options = {});

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_PLANNING_HINDSIGHT_H_
