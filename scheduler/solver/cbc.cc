#include <algorithm>
#include <cmath>
#include <coin/CbcHeuristic.hpp>
#include <coin/CbcModel.hpp>
#include <coin/CglGomory.hpp>
#include <coin/CglKnapsackCover.hpp>
#include <coin/CglMixedIntegerRounding2.hpp>
#include <coin/CglProbing.hpp>
#include <coin/OsiClpSolverInterface.hpp>
#include <limits>
#include <numeric>

#include "scheduler/solver/coin.h"

namespace orrery {
namespace {

constexpr double kFeasible = 1e-6;  // of rows and bounds, relative to their size
constexpr int kSometimes = -5;      // Cbc: cut at the root, then only where it pays

int Clamp(int64_t count) {
  return static_cast<int>(std::clamp<int64_t>(count, 0, std::numeric_limits<int>::max()));
}

// Two points differ in objective by a multiple of this; 0 when nothing is known.
double ObjectiveStep(const LinearProgram& program) {
  int64_t step = 0;
  for (const Variable& v : program.variables()) {
    if (v.objective == 0.0) continue;
    if (!v.integer || std::abs(v.objective) > 1e9 || v.objective != std::round(v.objective)) return 0.0;
    step = std::gcd(step, static_cast<int64_t>(v.objective));
  }
  return static_cast<double>(step);
}

double Scale(const LinearProgram& program) {
  double scale = 1.0;
  for (const Constraint& c : program.constraints()) {
    if (std::isfinite(c.lower)) scale = std::max(scale, std::abs(c.lower));
    if (std::isfinite(c.upper)) scale = std::max(scale, std::abs(c.upper));
  }
  return scale;
}

void Load(const LinearProgram& program, const internal::CoinArrays& arrays, OsiClpSolverInterface* solver) {
  solver->messageHandler()->setLogLevel(0);
  solver->getModelPtr()->setLogLevel(0);
  solver->loadProblem(static_cast<int>(program.variables().size()),
                      static_cast<int>(program.constraints().size()), arrays.matrix.starts.data(),
                      arrays.matrix.rows.data(), arrays.matrix.values.data(), arrays.column_lower.data(),
                      arrays.column_upper.data(), arrays.objective.data(), arrays.row_lower.data(),
                      arrays.row_upper.data());
  for (size_t j = 0; j < program.variables().size(); ++j) {
    if (program.variables()[j].integer) solver->setInteger(static_cast<int>(j));
  }
}

void AddCuts(CbcModel* model) {
  CglProbing probing;
  probing.setUsingObjective(1);
  probing.setMaxPass(1);
  probing.setMaxProbe(10);
  probing.setMaxLook(10);
  probing.setRowCuts(3);
  CglGomory gomory;
  gomory.setLimit(300);
  CglKnapsackCover knapsack;
  CglMixedIntegerRounding2 rounding;
  model->addCutGenerator(&probing, kSometimes, "probing");
  model->addCutGenerator(&gomory, kSometimes, "gomory");
  model->addCutGenerator(&knapsack, kSometimes, "knapsack cover");
  model->addCutGenerator(&rounding, kSometimes, "rounding");
  CbcRounding heuristic(*model);
  model->addHeuristic(&heuristic, "rounding");
}

// The libraries allow a tolerance on integers; a count must be one.
absl::Status TakePoint(const LinearProgram& program, const double* values, MipSolution* solution) {
  std::vector<double> point(values, values + program.variables().size());
  for (size_t j = 0; j < point.size(); ++j) {
    if (program.variables()[j].integer) point[j] = std::round(point[j]);
  }
  const PointCheck check = CheckPoint(program, point);
  if (check.worst_violation > 10 * kFeasible * Scale(program))
    return absl::InternalError(Cat("cbc: its point violates '", check.worst, "' by ", check.worst_violation));
  solution->has_point = true;
  solution->objective = check.objective;
  solution->values = std::move(point);
  return absl::OkStatus();
}

absl::StatusOr<MipSolution> RunCbc(const LinearProgram& program, const SolveLimits& limits,
                                   const std::vector<double>* start) {
  const internal::CoinArrays arrays(program);
  MipSolution solution;
  solution.bound = -arrays.sign * kInfinity;
  if (start != nullptr) {
    if (absl::Status status = TakePoint(program, start->data(), &solution); !status.ok()) return status;
  }
  OsiClpSolverInterface solver;
  Load(program, arrays, &solver);
  if (limits.wall_seconds != kInfinity) solver.getModelPtr()->setMaximumWallSeconds(limits.wall_seconds);
  solver.getModelPtr()->setMaximumIterations(Clamp(limits.iterations));
  solver.initialSolve();
  solution.iterations = solver.getIterationCount();
  if (!solver.isProvenOptimal()) {
    solution.status = solver.isProvenPrimalInfeasible() ? SolveStatus::kInfeasible
                      : solver.isProvenDualInfeasible() ? SolveStatus::kUnbounded
                                                        : SolveStatus::kLimit;
    return solution;
  }
  solution.bound = arrays.sign * solver.getObjValue();

  CbcModel model(solver);
  model.setLogLevel(0);
  model.messageHandler()->setLogLevel(0);
  model.solver()->messageHandler()->setLogLevel(0);
  model.setMaximumNodes(Clamp(limits.nodes));
  model.setMaximumNumberIterations(Clamp(limits.iterations));
  if (limits.wall_seconds != kInfinity) {
    model.setUseElapsedTime(true);
    model.setMaximumSeconds(limits.wall_seconds);
  }
  model.setAllowableGap(0.0);
  model.setAllowableFractionGap(0.0);
  const double step = ObjectiveStep(program);
  if (step > 0.0) model.setCutoffIncrement(step * (1.0 - 1e-4));
  AddCuts(&model);
  if (start != nullptr) {
    model.setBestSolution(solution.values.data(), static_cast<int>(solution.values.size()),
                          arrays.sign * solution.objective, false);
    model.setCutoff(arrays.sign * solution.objective - (step > 0.0 ? step * (1.0 - 1e-4) : 1e-9));
  }
  model.branchAndBound();

  solution.nodes = model.getNodeCount();
  solution.iterations = model.getIterationCount();
  if (const double* best = model.bestSolution(); best != nullptr) {
    if (absl::Status status = TakePoint(program, best, &solution); !status.ok()) return status;
  }
  if (model.status() != 0) {
    const double bound = arrays.sign * model.getBestPossibleObjValue();
    solution.bound = arrays.sign > 0 ? std::max(solution.bound, bound) : std::min(solution.bound, bound);
    solution.status = SolveStatus::kLimit;
  } else {
    solution.status = solution.has_point ? SolveStatus::kOptimal : SolveStatus::kInfeasible;
    solution.bound = solution.objective;
  }
  return solution;
}

}  // namespace

absl::StatusOr<MipSolution> SolveMip(const LinearProgram& program, const SolveLimits& limits,
                                     const std::vector<double>* start) {
  if (absl::Status status = program.Validate(); !status.ok()) return status;
  if (start != nullptr) {
    if (start->size() != program.variables().size())
      return absl::InvalidArgumentError("start: needs one value for each variable");
    const PointCheck check = CheckPoint(program, *start);
    if (check.worst_violation > kFeasible * Scale(program) || check.worst_fraction > kFeasible)
      return absl::InvalidArgumentError(Cat("start: violates '", check.worst, "'"));
  }
  auto solution = internal::WithoutExceptions("cbc", [&] { return RunCbc(program, limits, start); });
  if (!solution.ok()) return solution;
  if (solution->status != SolveStatus::kInfeasible && solution->status != SolveStatus::kUnbounded)
    return solution;
  auto feasibility =
      internal::WithoutExceptions("clp", [&] { return internal::CheckFeasibility(program, limits); });
  if (!feasibility.ok()) return feasibility.status();
  if (feasibility->feasible) return solution;  // unbounded, or integrality alone rules every point out
  solution->status = SolveStatus::kInfeasible;
  solution->conflict = std::move(feasibility->conflict);
  return solution;
}

}  // namespace orrery
