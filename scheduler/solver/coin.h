// Shared by the two COIN-OR adapters; no other file includes it.
#ifndef ORRERY_SCHEDULER_SOLVER_COIN_H_
#define ORRERY_SCHEDULER_SOLVER_COIN_H_

#include <coin/CoinError.hpp>
#include <coin/CoinFinite.hpp>
#include <exception>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/base/text.h"
#include "scheduler/solver/linear_program.h"
#include "scheduler/solver/solver.h"

namespace orrery::internal {

// A program in the libraries' form, always a minimisation: `sign` is -1 where the program maximises.
struct CoinArrays {
  explicit CoinArrays(const LinearProgram& program) : matrix(program.Matrix()) {
    sign = program.sense() == Sense::kMinimize ? 1.0 : -1.0;
    for (const Variable& v : program.variables()) {
      column_lower.push_back(Finite(v.lower));
      column_upper.push_back(Finite(v.upper));
      objective.push_back(sign * v.objective);
    }
    for (const Constraint& c : program.constraints()) {
      row_lower.push_back(Finite(c.lower));
      row_upper.push_back(Finite(c.upper));
    }
  }
  static double Finite(double limit) {
    return limit == kInfinity ? COIN_DBL_MAX : limit == -kInfinity ? -COIN_DBL_MAX : limit;
  }

  ColumnMatrix matrix;
  double sign = 1.0;
  std::vector<double> column_lower, column_upper, objective, row_lower, row_upper;
};

// Runs `body`, which may throw whatever the libraries throw.
template <typename Body>
auto WithoutExceptions(const char* what, Body body) -> decltype(body()) {
  try {
    return body();
  } catch (const CoinError& error) {
    return absl::InternalError(Cat(what, ": ", error.className(), ": ", error.message()));
  } catch (const std::exception& error) {
    return absl::InternalError(Cat(what, ": ", error.what()));
  } catch (...) {
    return absl::InternalError(Cat(what, ": unknown exception"));
  }
}

// One run of Clp. kInfeasible and kUnbounded are its word, not yet proven, and come without a conflict.
// REQUIRES: program.Validate().ok().
absl::StatusOr<LpSolution> RunClp(const LinearProgram& program, const SolveLimits& limits);

// Settles a program that a solver calls infeasible or unbounded by phase 1 of the simplex method: allows
// every constraint to be missed, and minimises the sum of what is missing.
struct Feasibility {
  bool feasible = false;
  std::vector<std::string> conflict;  // of LpSolution
};
absl::StatusOr<Feasibility> CheckFeasibility(const LinearProgram& program, const SolveLimits& limits);

}  // namespace orrery::internal

#endif  // ORRERY_SCHEDULER_SOLVER_COIN_H_
