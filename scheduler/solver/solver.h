// Linear and mixed-integer programs, solved. Clp and Cbc (COIN-OR) do the work behind these two calls; none
// of their types, messages or exceptions gets out.
//
// Equal inputs give equal outputs: budgets are counted in iterations and nodes, one thread, no clock. The one
// exception is `wall_seconds`, for a person who waits for `orrery plan`; no core may set it.
//
// A solve that ends without an optimum is a value of SolveStatus; an error status means that the question was
// wrong (INVALID_ARGUMENT), too large (RESOURCE_EXHAUSTED) or that the library failed (INTERNAL).
#ifndef ORRERY_SCHEDULER_SOLVER_SOLVER_H_
#define ORRERY_SCHEDULER_SOLVER_SOLVER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/solver/linear_program.h"

namespace orrery {

enum class SolveStatus : uint8_t {
  kOptimal,
  kInfeasible,
  kUnbounded,
  kLimit,  // a budget ran out
};
std::string_view SolveStatusName(SolveStatus status);

struct SolveLimits {
  int64_t iterations = 10'000'000;  // of the simplex method, all nodes together
  int64_t nodes = 1'000'000;        // of branch and bound
  double wall_seconds = kInfinity;
};

// Signs: a dual is the change of the optimal objective, in the program's own sense, for one unit more of the
// constraint's binding limit; a reduced cost the same for the variable's. Of a maximisation whose constraint
// is a resource limit, the dual is the price of the resource, never negative.
struct LpSolution {
  SolveStatus status = SolveStatus::kLimit;
  double objective = 0.0;             // these four only if kOptimal
  std::vector<double> values;         // by variable
  std::vector<double> duals;          // by constraint
  std::vector<double> reduced_costs;  // by variable
  int64_t iterations = 0;
  // If kInfeasible: constraints that cannot all hold within the variables' own limits, by name. Minimal (the
  // rest could be met without any one of them) unless a certificate names more than kMaxConflict.
  std::vector<std::string> conflict;
  static constexpr int kMaxConflict = 128;
};

// Integrality is ignored.
absl::StatusOr<LpSolution> SolveLp(const LinearProgram& program, const SolveLimits& limits = {});

struct MipSolution {
  SolveStatus status = SolveStatus::kLimit;
  bool has_point = false;      // always if kOptimal, perhaps if kLimit
  double objective = 0.0;      // of the point
  std::vector<double> values;  // of the point; integer variables are exact integers
  double bound = 0.0;          // no point is better; equals objective if kOptimal. Infinite when not known
  int64_t nodes = 0;
  int64_t iterations = 0;
  std::vector<std::string> conflict;  // as above; empty when only integrality rules every point out
};

// `start`: a point that satisfies everything, one value for each variable, or null. A better one is returned
// or this one is; a start that is not feasible is INVALID_ARGUMENT.
absl::StatusOr<MipSolution> SolveMip(const LinearProgram& program, const SolveLimits& limits = {},
                                     const std::vector<double>* start = nullptr);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_SOLVER_SOLVER_H_
