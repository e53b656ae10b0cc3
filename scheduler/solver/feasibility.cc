#include <algorithm>
#include <cmath>

#include "scheduler/solver/coin.h"

namespace orrery::internal {
namespace {

constexpr double kTolerance = 1e-6;  // of what is missing, relative to the size of the limits
constexpr double kNoDual = 1e-9;

using Rows = std::vector<ConstraintId>;

struct Elastic {
  bool feasible = false;
  bool limit = false;
  Rows support;  // rows with a price: together they certify that something is missing
};

// min sum of slack over the rows in `rows`, all other rows left out.
absl::StatusOr<Elastic> SolveElastic(const LinearProgram& program, const Rows& rows,
                                     const SolveLimits& limits) {
  LinearProgram relaxed(Sense::kMinimize);
  for (const Variable& v : program.variables()) relaxed.Add(Variable{v.name, v.lower, v.upper, 0.0, false});
  constexpr int32_t kLeftOut = -1;
  std::vector<int32_t> position(program.constraints().size(), kLeftOut);
  double scale = 1.0;
  for (const ConstraintId row : rows) {
    const Constraint& c = program.constraint(row);
    const ConstraintId id = relaxed.Add(c);
    position[static_cast<size_t>(row)] = static_cast<int32_t>(id);
    if (c.lower != -kInfinity) {
      relaxed.AddTerm(id, relaxed.Add(Variable{c.name, 0.0, kInfinity, 1.0, false}), 1.0);
      scale = std::max(scale, std::abs(c.lower));
    }
    if (c.upper != kInfinity) {
      relaxed.AddTerm(id, relaxed.Add(Variable{c.name, 0.0, kInfinity, 1.0, false}), -1.0);
      scale = std::max(scale, std::abs(c.upper));
    }
  }
  for (const Term& term : program.terms()) {
    const int32_t id = position[static_cast<size_t>(term.constraint)];
    if (id != kLeftOut) relaxed.AddTerm(static_cast<ConstraintId>(id), term.variable, term.coefficient);
  }
  const auto solution = RunClp(relaxed, limits);
  if (!solution.ok()) return solution.status();
  Elastic result;
  if (solution->status == SolveStatus::kLimit) {
    result.limit = true;
    return result;
  }
  if (solution->status != SolveStatus::kOptimal)
    return absl::InternalError("clp: phase 1 of a program ended without an optimum");
  result.feasible = solution->objective <= kTolerance * scale;
  for (size_t i = 0; i < solution->duals.size(); ++i) {
    if (std::abs(solution->duals[i]) > kNoDual) result.support.push_back(rows[i]);
  }
  return result;
}

}  // namespace

absl::StatusOr<Feasibility> CheckFeasibility(const LinearProgram& program, const SolveLimits& limits) {
  Rows all;
  for (size_t r = 0; r < program.constraints().size(); ++r) all.push_back(static_cast<ConstraintId>(r));
  auto elastic = SolveElastic(program, all, limits);
  if (!elastic.ok()) return elastic.status();
  if (elastic->limit) return absl::ResourceExhaustedError("phase 1: the budget ran out");
  Feasibility result;
  result.feasible = elastic->feasible;
  if (result.feasible) return result;

  // Deletion filter: a row without which the others still conflict is not needed for the conflict.
  Rows conflict = elastic->support.empty() ? all : elastic->support;
  if (conflict.size() <= LpSolution::kMaxConflict) {
    for (size_t i = 0; i < conflict.size();) {
      Rows rest = conflict;
      rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(i));
      const auto without = SolveElastic(program, rest, limits);
      if (!without.ok()) return without.status();
      if (without->feasible || without->limit) {
        ++i;
      } else {
        conflict = std::move(rest);
      }
    }
  }
  for (const ConstraintId row : conflict) result.conflict.push_back(program.constraint(row).name);
  return result;
}

}  // namespace orrery::internal
