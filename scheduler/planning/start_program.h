// The time-indexed program of hindsight.h over a chosen set of columns.
#ifndef ORRERY_SCHEDULER_PLANNING_START_PROGRAM_H_
#define ORRERY_SCHEDULER_PLANNING_START_PROGRAM_H_

#include <cstdint>
#include <vector>

#include "scheduler/planning/unit_step.h"
#include "scheduler/solver/linear_program.h"

namespace orrery::internal {

// A column: request `request` starts at `start`.
struct StartColumn {
  size_t request = 0;
  int64_t start = 0;
};

// The rounds a schedule may use at all, and what the full horizon max a + sum o is.
int64_t FullHorizon(const UnitInstance& instance);
// Every column whose request completes by `horizon`.
std::vector<StartColumn> ColumnsUntil(const UnitInstance& instance, int64_t horizon);
// Terms of the program over all columns until `horizon`, counted without building it.
double CountTerms(const UnitInstance& instance, int64_t horizon);

// Variables in the order of `columns`; constraints: one for each request, then one for each round that the
// columns can fill beyond the capacity (`rounds`, ascending).
struct StartProgram {
  LinearProgram program{Sense::kMinimize};
  std::vector<int64_t> rounds;
};
// `cliques`: sets of columns of which at most one is used, as further constraints.
StartProgram BuildStartProgram(const UnitInstance& instance, const std::vector<StartColumn>& columns,
                               bool integer, const std::vector<std::vector<size_t>>& cliques = {});

// Reduced costs of any column under the prices of a solved program: rounds it left out have price 0.
class ColumnPricer {
 public:
  ColumnPricer(const UnitInstance& instance, const StartProgram& solved, const std::vector<double>& duals);
  double ReducedCost(const StartColumn& column) const;
  // No column that starts at or after this round touches a price.
  int64_t priced_until() const { return static_cast<int64_t>(price_.size()) - 1; }

 private:
  const UnitInstance& instance_;
  std::vector<double> choice_;  // by request: the price of placing it
  // Prefix sums over rounds of price and of price * round: a column's rounds cost a difference of each.
  std::vector<double> price_, weighted_;
};

}  // namespace orrery::internal

#endif  // ORRERY_SCHEDULER_PLANNING_START_PROGRAM_H_
