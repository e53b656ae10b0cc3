#include <algorithm>
#include <coin/ClpSimplex.hpp>
#include <coin/ClpSolve.hpp>
#include <limits>

#include "scheduler/solver/coin.h"

namespace orrery {

std::string_view SolveStatusName(SolveStatus status) {
  switch (status) {
    case SolveStatus::kOptimal:
      return "optimal";
    case SolveStatus::kInfeasible:
      return "infeasible";
    case SolveStatus::kUnbounded:
      return "unbounded";
    case SolveStatus::kLimit:
      return "limit";
  }
  return "unknown";
}

namespace internal {
namespace {

// Every variable at its best limit: what is left of a program without constraints.
LpSolution SolveWithoutRows(const LinearProgram& program) {
  LpSolution solution;
  solution.status = SolveStatus::kOptimal;
  const double sign = program.sense() == Sense::kMinimize ? 1.0 : -1.0;
  for (const Variable& v : program.variables()) {
    const double cost = sign * v.objective;
    double value = cost > 0 ? v.lower : cost < 0 ? v.upper : std::clamp(0.0, v.lower, v.upper);
    if (value == kInfinity || value == -kInfinity) {
      solution.status = SolveStatus::kUnbounded;
      value = 0.0;
    }
    solution.values.push_back(value);
    solution.reduced_costs.push_back(v.objective);
    solution.objective += v.objective * value;
  }
  return solution;
}

LpSolution Read(const ClpSimplex& model, const LinearProgram& program, double sign) {
  LpSolution solution;
  solution.iterations = model.numberIterations();
  switch (model.status()) {
    case 0:
      solution.status = SolveStatus::kOptimal;
      break;
    case 1:
      solution.status = SolveStatus::kInfeasible;
      break;
    case 2:
      solution.status = SolveStatus::kUnbounded;
      break;
    default:
      solution.status = SolveStatus::kLimit;
      break;
  }
  if (solution.status != SolveStatus::kOptimal) return solution;
  const size_t columns = program.variables().size(), rows = program.constraints().size();
  const double* value = model.primalColumnSolution();
  solution.values.assign(value, value + columns);
  for (size_t j = 0; j < columns; ++j) {
    solution.objective += program.variables()[j].objective * value[j];
    solution.reduced_costs.push_back(sign * model.dualColumnSolution()[j]);
  }
  for (size_t r = 0; r < rows; ++r) solution.duals.push_back(sign * model.dualRowSolution()[r]);
  return solution;
}

}  // namespace

absl::StatusOr<LpSolution> RunClp(const LinearProgram& program, const SolveLimits& limits) {
  if (program.constraints().empty()) return SolveWithoutRows(program);
  const CoinArrays arrays(program);
  return WithoutExceptions("clp", [&]() -> absl::StatusOr<LpSolution> {
    ClpSimplex model;
    model.setLogLevel(0);
    model.loadProblem(static_cast<int>(program.variables().size()),
                      static_cast<int>(program.constraints().size()), arrays.matrix.starts.data(),
                      arrays.matrix.rows.data(), arrays.matrix.values.data(), arrays.column_lower.data(),
                      arrays.column_upper.data(), arrays.objective.data(), arrays.row_lower.data(),
                      arrays.row_upper.data());
    model.setMaximumIterations(
        static_cast<int>(std::min<int64_t>(limits.iterations, std::numeric_limits<int>::max())));
    if (limits.wall_seconds != kInfinity) model.setMaximumWallSeconds(limits.wall_seconds);
    ClpSolve how;
    how.setSolveType(ClpSolve::useDual);
    how.setPresolveType(ClpSolve::presolveOff);
    model.initialSolve(how);
    return Read(model, program, arrays.sign);
  });
}

}  // namespace internal

absl::StatusOr<LpSolution> SolveLp(const LinearProgram& program, const SolveLimits& limits) {
  if (absl::Status status = program.Validate(); !status.ok()) return status;
  auto solution = internal::RunClp(program, limits);
  if (!solution.ok()) return solution;
  if (solution->status != SolveStatus::kInfeasible && solution->status != SolveStatus::kUnbounded)
    return solution;
  auto feasibility = internal::CheckFeasibility(program, limits);
  if (!feasibility.ok()) return feasibility.status();
  LpSolution settled;
  settled.iterations = solution->iterations;
  settled.status = feasibility->feasible ? SolveStatus::kUnbounded : SolveStatus::kInfeasible;
  settled.conflict = std::move(feasibility->conflict);
  if (feasibility->feasible && solution->status == SolveStatus::kInfeasible)
    return absl::InternalError("clp: a program that has a point was called infeasible");
  return settled;
}

}  // namespace orrery
