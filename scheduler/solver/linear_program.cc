#include "scheduler/solver/linear_program.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "scheduler/base/text.h"

namespace orrery {
namespace {

absl::Status CheckRange(std::string_view kind, const std::string& name, double lower, double upper) {
  if (std::isnan(lower) || std::isnan(upper) || lower == kInfinity || upper == -kInfinity)
    return absl::InvalidArgumentError(Cat(kind, " '", name, "': limits must be numbers"));
  if (lower > upper) {
    return absl::InvalidArgumentError(
        Cat(kind, " '", name, "': lower limit ", lower, " is above upper limit ", upper));
  }
  return absl::OkStatus();
}

absl::Status CheckSize(std::string_view what, size_t count, size_t limit) {
  if (count <= limit) return absl::OkStatus();
  return absl::ResourceExhaustedError(Cat("program has ", count, " ", what, ", at most ", limit));
}

}  // namespace

VariableId LinearProgram::Add(Variable variable) {
  has_integers_ = has_integers_ || variable.integer;
  variables_.push_back(std::move(variable));
  return static_cast<VariableId>(variables_.size() - 1);
}

ConstraintId LinearProgram::Add(Constraint constraint) {
  constraints_.push_back(std::move(constraint));
  return static_cast<ConstraintId>(constraints_.size() - 1);
}

absl::Status LinearProgram::Validate() const {
  for (const absl::Status& status : {CheckSize("constraints", constraints_.size(), kMaxRows),
                                     CheckSize("variables", variables_.size(), kMaxColumns),
                                     CheckSize("terms", terms_.size(), kMaxTerms)}) {
    if (!status.ok()) return status;
  }
  for (const Variable& v : variables_) {
    if (absl::Status status = CheckRange("variable", v.name, v.lower, v.upper); !status.ok()) return status;
    if (!std::isfinite(v.objective))
      return absl::InvalidArgumentError(Cat("variable '", v.name, "': objective is not finite"));
  }
  for (const Constraint& c : constraints_) {
    if (absl::Status status = CheckRange("constraint", c.name, c.lower, c.upper); !status.ok()) return status;
  }
  for (const Term& term : terms_) {
    if (static_cast<size_t>(term.constraint) >= constraints_.size() ||
        static_cast<size_t>(term.variable) >= variables_.size())
      return absl::InvalidArgumentError("a term names a constraint or variable that does not exist");
    if (!std::isfinite(term.coefficient)) {
      return absl::InvalidArgumentError(Cat("constraint '", constraint(term.constraint).name,
                                            "': coefficient of '", variable(term.variable).name,
                                            "' is not finite"));
    }
  }
  return absl::OkStatus();
}

ColumnMatrix LinearProgram::Matrix() const {
  const size_t columns = variables_.size();
  // By column, then by row: two stable counting passes would need two copies; sorting each column is less.
  std::vector<int32_t> begin(columns + 1, 0);
  for (const Term& term : terms_) ++begin[static_cast<size_t>(term.variable) + 1];
  for (size_t j = 0; j < columns; ++j) begin[j + 1] += begin[j];
  std::vector<std::pair<int32_t, double>> entries(terms_.size());
  std::vector<int32_t> next(begin.begin(), begin.end() - 1);
  for (const Term& term : terms_) {
    const auto j = static_cast<size_t>(term.variable);
    entries[static_cast<size_t>(next[j]++)] = {static_cast<int32_t>(term.constraint), term.coefficient};
  }

  ColumnMatrix matrix;
  matrix.starts.reserve(columns + 1);
  matrix.rows.reserve(entries.size());
  matrix.values.reserve(entries.size());
  matrix.starts.push_back(0);
  for (size_t j = 0; j < columns; ++j) {
    const auto first = entries.begin() + begin[j], last = entries.begin() + begin[j + 1];
    std::stable_sort(first, last, [](const auto& a, const auto& b) { return a.first < b.first; });
    for (auto it = first; it != last;) {
      double sum = 0.0;
      const int32_t row = it->first;
      for (; it != last && it->first == row; ++it) sum += it->second;
      if (sum == 0.0) continue;
      matrix.rows.push_back(row);
      matrix.values.push_back(sum);
    }
    matrix.starts.push_back(static_cast<int32_t>(matrix.rows.size()));
  }
  return matrix;
}

PointCheck CheckPoint(const LinearProgram& program, const std::vector<double>& values) {
  PointCheck check;
  const auto see = [&check](const std::string& name, double value, double lower, double upper) {
    const double violation = std::max({0.0, lower - value, value - upper});
    if (violation <= check.worst_violation) return;
    check.worst_violation = violation;
    check.worst = name;
  };
  std::vector<double> rows(program.constraints().size(), 0.0);
  for (const Term& term : program.terms())
    rows[static_cast<size_t>(term.constraint)] +=
        term.coefficient * values[static_cast<size_t>(term.variable)];
  for (size_t r = 0; r < rows.size(); ++r) {
    const Constraint& c = program.constraints()[r];
    see(c.name, rows[r], c.lower, c.upper);
  }
  for (size_t j = 0; j < values.size(); ++j) {
    const Variable& v = program.variables()[j];
    see(v.name, values[j], v.lower, v.upper);
    check.objective += v.objective * values[j];
    if (v.integer)
      check.worst_fraction = std::max(check.worst_fraction, std::abs(values[j] - std::round(values[j])));
  }
  return check;
}

}  // namespace orrery
