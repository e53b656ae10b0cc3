// Random small programs for the solver's tests.
#ifndef ORRERY_TESTS_SCHEDULER_SOLVER_RANDOM_PROGRAM_H_
#define ORRERY_TESTS_SCHEDULER_SOLVER_RANDOM_PROGRAM_H_

#include <string>

#include "scheduler/base/random.h"
#include "scheduler/solver/linear_program.h"

namespace orrery {

// Small integers everywhere, so that ties, degenerate corners and conflicts are common. Every variable has
// both limits.
inline LinearProgram RandomProgram(RandomStream& random, int variables, int constraints, bool integer) {
  const auto between = [&random](int low, int high) {
    return static_cast<double>(low + static_cast<int>(random.Below(static_cast<uint64_t>(high - low + 1))));
  };
  LinearProgram program(random.Below(2) == 0 ? Sense::kMinimize : Sense::kMaximize);
  for (int j = 0; j < variables; ++j) {
    const double lower = between(-2, 1);
    program.Add(Variable{"x" + std::to_string(j), lower, lower + between(0, 4), between(-5, 5), integer});
  }
  for (int r = 0; r < constraints; ++r) {
    const double at = between(-8, 8);
    Constraint c{"c" + std::to_string(r)};
    switch (random.Below(4)) {
      case 0:
        c.lower = at;
        break;
      case 1:
        c.upper = at;
        break;
      case 2:
        c.lower = at, c.upper = at + between(0, 3);
        break;
      default:
        c.upper = at + 4;
        break;
    }
    const ConstraintId id = program.Add(c);
    for (int j = 0; j < variables; ++j) {
      if (random.Below(3) != 0) program.AddTerm(id, static_cast<VariableId>(j), between(-4, 4));
    }
  }
  return program;
}

}  // namespace orrery

#endif  // ORRERY_TESTS_SCHEDULER_SOLVER_RANDOM_PROGRAM_H_
