// A linear or mixed-integer program as data: named variables and constraints, independent of any solver.
//
//   minimise or maximise   objective . x
//   subject to             lower_r <= sum of terms of row r <= upper_r,  lower_j <= x_j <= upper_j,
//                          x_j integer where asked
//
// kInfinity (or its negative) is a missing limit. Nothing is checked while a program is built; Validate says
// what is wrong and names it, and the solvers call it first.
#ifndef ORRERY_SCHEDULER_SOLVER_LINEAR_PROGRAM_H_
#define ORRERY_SCHEDULER_SOLVER_LINEAR_PROGRAM_H_

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace orrery {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Dense, in the order of addition.
enum class VariableId : int32_t {};
enum class ConstraintId : int32_t {};

enum class Sense : uint8_t { kMinimize, kMaximize };

struct Variable {
  std::string name;
  double lower = 0.0;
  double upper = kInfinity;
  double objective = 0.0;
  bool integer = false;
};

struct Constraint {
  std::string name;
  double lower = -kInfinity;
  double upper = kInfinity;
};

struct Term {
  ConstraintId constraint{};
  VariableId variable{};
  double coefficient = 0.0;
};

// The matrix by columns: entries of column j are [starts[j], starts[j + 1]), rows ascending, none twice.
struct ColumnMatrix {
  std::vector<int32_t> starts;
  std::vector<int32_t> rows;
  std::vector<double> values;
};

class LinearProgram {
 public:
  explicit LinearProgram(Sense sense) : sense_(sense) {}

  VariableId Add(Variable variable);
  ConstraintId Add(Constraint constraint);
  // Terms of the same constraint and variable add up.
  void AddTerm(ConstraintId constraint, VariableId variable, double coefficient) {
    terms_.push_back({constraint, variable, coefficient});
  }

  Sense sense() const { return sense_; }
  const std::vector<Variable>& variables() const { return variables_; }
  const std::vector<Constraint>& constraints() const { return constraints_; }
  const std::vector<Term>& terms() const { return terms_; }
  const Variable& variable(VariableId id) const { return variables_[static_cast<size_t>(id)]; }
  const Constraint& constraint(ConstraintId id) const { return constraints_[static_cast<size_t>(id)]; }
  bool has_integers() const { return has_integers_; }

  // INVALID_ARGUMENT: a number that is not finite, lower > upper, an id out of range; RESOURCE_EXHAUSTED:
  // more than kMaxRows rows, kMaxColumns columns or kMaxTerms terms. The message names the thing.
  absl::Status Validate() const;
  static constexpr size_t kMaxRows = 2'000'000;
  static constexpr size_t kMaxColumns = 4'000'000;
  static constexpr size_t kMaxTerms = 50'000'000;

  // REQUIRES: Validate().ok().
  ColumnMatrix Matrix() const;

 private:
  Sense sense_;
  bool has_integers_ = false;
  std::vector<Variable> variables_;
  std::vector<Constraint> constraints_;
  std::vector<Term> terms_;
};

// What a point is worth and how far it misses, computed from the program alone: the judge of every solver.
struct PointCheck {
  double objective = 0.0;
  double worst_violation = 0.0;  // of a row or a bound, absolute
  double worst_fraction = 0.0;   // distance of an integer variable from an integer
  std::string worst;             // name of what is violated most; empty when nothing is
};
// REQUIRES: Validate().ok() and one value for each variable.
PointCheck CheckPoint(const LinearProgram& program, const std::vector<double>& values);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_SOLVER_LINEAR_PROGRAM_H_
