// Linear programs against brute force over corners, against the conditions that prove an optimum, and the
// ways in which there is none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "scheduler/solver/solver.h"
#include "tests/scheduler/solver/random_program.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

constexpr double kClose = 1e-6;

// A row of `limits`: coefficients . x at most or at least a number, seen as an equation for a corner.
struct Plane {
  std::vector<double> coefficients;
  double at;
};

std::vector<Plane> Planes(const LinearProgram& program) {
  const size_t n = program.variables().size();
  std::vector<Plane> planes;
  const auto add = [&planes](const std::vector<double>& row, double at) {
    if (std::isfinite(at)) planes.push_back({row, at});
  };
  for (size_t r = 0; r < program.constraints().size(); ++r) {
    std::vector<double> row(n, 0.0);
    for (const Term& t : program.terms()) {
      if (static_cast<size_t>(t.constraint) == r) row[static_cast<size_t>(t.variable)] += t.coefficient;
    }
    add(row, program.constraints()[r].lower);
    add(row, program.constraints()[r].upper);
  }
  for (size_t j = 0; j < n; ++j) {
    std::vector<double> row(n, 0.0);
    row[j] = 1.0;
    add(row, program.variables()[j].lower);
    add(row, program.variables()[j].upper);
  }
  return planes;
}

// Gauss with pivoting; nothing when the planes do not meet in one point.
std::optional<std::vector<double>> Meet(std::vector<Plane> planes) {
  const size_t n = planes.size();
  for (size_t k = 0; k < n; ++k) {
    size_t pivot = k;
    for (size_t i = k + 1; i < n; ++i) {
      if (std::abs(planes[i].coefficients[k]) > std::abs(planes[pivot].coefficients[k])) pivot = i;
    }
    if (std::abs(planes[pivot].coefficients[k]) < 1e-9) return std::nullopt;
    std::swap(planes[k], planes[pivot]);
    for (size_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double factor = planes[i].coefficients[k] / planes[k].coefficients[k];
      for (size_t j = k; j < n; ++j) planes[i].coefficients[j] -= factor * planes[k].coefficients[j];
      planes[i].at -= factor * planes[k].at;
    }
  }
  std::vector<double> x;
  for (size_t k = 0; k < n; ++k) x.push_back(planes[k].at / planes[k].coefficients[k]);
  return x;
}

// The best corner: a bounded program has its optimum in one. Nothing when no corner satisfies everything.
std::optional<double> BestCorner(const LinearProgram& program) {
  const size_t n = program.variables().size();
  const std::vector<Plane> planes = Planes(program);
  std::optional<double> best;
  std::vector<size_t> pick(n);
  const auto visit = [&](auto& self, size_t depth, size_t from) -> void {
    if (depth < n) {
      for (size_t i = from; i < planes.size(); ++i) {
        pick[depth] = i;
        self(self, depth + 1, i + 1);
      }
      return;
    }
    std::vector<Plane> chosen;
    for (const size_t i : pick) chosen.push_back(planes[i]);
    const auto x = Meet(std::move(chosen));
    if (!x) return;
    const PointCheck check = CheckPoint(program, *x);
    if (check.worst_violation > 1e-7) return;
    const bool better =
        !best || (program.sense() == Sense::kMinimize ? check.objective < *best : check.objective > *best);
    if (better) best = check.objective;
  };
  visit(visit, 0, 0);
  return best;
}

// The conditions of an optimum: feasible, prices of the right sign and only on limits that bind, and the
// gradient explained by the prices.
void ExpectOptimal(const LinearProgram& program, const LpSolution& solution) {
  const PointCheck check = CheckPoint(program, solution.values);
  EXPECT_LE(check.worst_violation, kClose) << check.worst;
  EXPECT_NEAR(check.objective, solution.objective, kClose);
  const double sign = program.sense() == Sense::kMinimize ? 1.0 : -1.0;
  const auto expect_price = [&](double price, double value, double lower, double upper, const char* name) {
    if (sign * price > kClose) {
      EXPECT_NEAR(value, lower, kClose) << name;
    }
    if (sign * price < -kClose) {
      EXPECT_NEAR(value, upper, kClose) << name;
    }
  };
  std::vector<double> rows(program.constraints().size(), 0.0);
  std::vector<double> gradient;
  for (const Variable& v : program.variables()) gradient.push_back(v.objective);
  for (const Term& t : program.terms()) {
    const auto r = static_cast<size_t>(t.constraint), j = static_cast<size_t>(t.variable);
    rows[r] += t.coefficient * solution.values[j];
    gradient[j] -= t.coefficient * solution.duals[r];
  }
  for (size_t r = 0; r < rows.size(); ++r) {
    const Constraint& c = program.constraints()[r];
    expect_price(solution.duals[r], rows[r], c.lower, c.upper, c.name.c_str());
  }
  for (size_t j = 0; j < gradient.size(); ++j) {
    const Variable& v = program.variables()[j];
    EXPECT_NEAR(gradient[j], solution.reduced_costs[j], kClose) << v.name;
    expect_price(solution.reduced_costs[j], solution.values[j], v.lower, v.upper, v.name.c_str());
  }
}

// The program without one of its constraints.
LinearProgram Without(const LinearProgram& program, const std::string& name) {
  LinearProgram rest(program.sense());
  for (const Variable& v : program.variables()) rest.Add(v);
  for (const Constraint& c : program.constraints()) {
    rest.Add(c.name == name ? Constraint{c.name, -kInfinity, kInfinity} : c);
  }
  for (const Term& t : program.terms()) rest.AddTerm(t.constraint, t.variable, t.coefficient);
  return rest;
}

TEST(Lp, PricesOfATextbookProgram) {
  // max 3x + 5y, x <= 4, 2y <= 12, 3x + 2y <= 18: (2, 6), 36, prices 0, 3/2, 1.
  LinearProgram program(Sense::kMaximize);
  const VariableId x = program.Add(Variable{"x", 0, kInfinity, 3});
  const VariableId y = program.Add(Variable{"y", 0, kInfinity, 5});
  const ConstraintId a = program.Add(Constraint{"a", -kInfinity, 4});
  const ConstraintId b = program.Add(Constraint{"b", -kInfinity, 12});
  const ConstraintId c = program.Add(Constraint{"c", -kInfinity, 18});
  program.AddTerm(a, x, 1);
  program.AddTerm(b, y, 1);
  program.AddTerm(b, y, 1);  // terms of one place add up
  program.AddTerm(c, x, 3);
  program.AddTerm(c, y, 2);
  const auto solution = SolveLp(program);
  ASSERT_TRUE(solution.ok()) << solution.status();
  ASSERT_EQ(solution->status, SolveStatus::kOptimal);
  EXPECT_NEAR(solution->objective, 36, kClose);
  EXPECT_NEAR(solution->values[0], 2, kClose);
  EXPECT_NEAR(solution->values[1], 6, kClose);
  EXPECT_NEAR(solution->duals[0], 0, kClose);
  EXPECT_NEAR(solution->duals[1], 1.5, kClose);
  EXPECT_NEAR(solution->duals[2], 1, kClose);
}

TEST(Lp, RandomProgramsAgreeWithTheBestCorner) {
  RandomStream random(20260101);
  int optimal = 0, infeasible = 0;
  for (int trial = 0; trial < 600; ++trial) {
    const int n = 1 + static_cast<int>(random.Below(3)), m = static_cast<int>(random.Below(6));
    const LinearProgram program = RandomProgram(random, n, m, false);
    const auto best = BestCorner(program);
    const auto solution = SolveLp(program);
    ASSERT_TRUE(solution.ok()) << solution.status();
    SCOPED_TRACE(trial);
    if (!best) {
      ASSERT_EQ(solution->status, SolveStatus::kInfeasible);
      ++infeasible;
      ASSERT_FALSE(solution->conflict.empty());
      for (const std::string& name : solution->conflict) {
        // Minimal: what is left of the conflict can be met.
        LinearProgram rest = program;
        for (const Constraint& c : program.constraints()) {
          const auto& names = solution->conflict;
          if (c.name == name || std::find(names.begin(), names.end(), c.name) == names.end())
            rest = Without(rest, c.name);
        }
        EXPECT_TRUE(BestCorner(rest)) << name;
      }
    } else {
      ASSERT_EQ(solution->status, SolveStatus::kOptimal);
      ++optimal;
      EXPECT_NEAR(solution->objective, *best, kClose);
      ExpectOptimal(program, *solution);
    }
  }
  EXPECT_GT(optimal, 200);
  EXPECT_GT(infeasible, 50);
}

TEST(Lp, LargerRandomProgramsMeetTheConditionsOfAnOptimum) {
  RandomStream random(7);
  int optimal = 0;
  for (int trial = 0; trial < 60; ++trial) {
    const LinearProgram program = RandomProgram(random, 25, 6, false);
    const auto solution = SolveLp(program);
    ASSERT_TRUE(solution.ok()) << solution.status();
    if (solution->status != SolveStatus::kOptimal) continue;
    ++optimal;
    SCOPED_TRACE(trial);
    ExpectOptimal(program, *solution);
  }
  EXPECT_GT(optimal, 30);
}

TEST(Lp, ConflictNamesTheConstraintsThatCannotAllHold) {
  LinearProgram program(Sense::kMinimize);
  const VariableId x = program.Add(Variable{"x"}), y = program.Add(Variable{"y"});
  program.AddTerm(program.Add(Constraint{"harmless", -kInfinity, 100}), x, 1);
  program.AddTerm(program.Add(Constraint{"floor", 8, kInfinity}), x, 1);
  const ConstraintId ceiling = program.Add(Constraint{"ceiling", -kInfinity, 5});
  program.AddTerm(ceiling, x, 1);
  program.AddTerm(ceiling, y, 1);
  const auto solution = SolveLp(program);
  ASSERT_TRUE(solution.ok());
  EXPECT_EQ(solution->status, SolveStatus::kInfeasible);
  EXPECT_THAT(solution->conflict, UnorderedElementsAre("floor", "ceiling"));
}

TEST(Lp, UnboundedIsToldFromInfeasible) {
  LinearProgram unbounded(Sense::kMaximize);
  const VariableId x = unbounded.Add(Variable{"x", 0, kInfinity, 1});
  unbounded.AddTerm(unbounded.Add(Constraint{"c", 1, kInfinity}), x, 1);
  EXPECT_EQ(SolveLp(unbounded)->status, SolveStatus::kUnbounded);

  LinearProgram both = unbounded;  // better without end, but no point at all
  const VariableId y = both.Add(Variable{"y", 0, 1, 0});
  both.AddTerm(both.Add(Constraint{"too much", 2, kInfinity}), y, 1);
  const auto solution = SolveLp(both);
  EXPECT_EQ(solution->status, SolveStatus::kInfeasible);
  EXPECT_THAT(solution->conflict, ElementsAre("too much"));
}

TEST(Lp, NothingToDecideAndNothingToObey) {
  LinearProgram empty(Sense::kMinimize);
  EXPECT_EQ(SolveLp(empty)->status, SolveStatus::kOptimal);
  LinearProgram free(Sense::kMaximize);
  free.Add(Variable{"x", -1, 3, 2});
  free.Add(Variable{"y", -4, 3, -1});
  EXPECT_DOUBLE_EQ(SolveLp(free)->objective, 10);
  free.Add(Variable{"z", 0, kInfinity, 1});
  EXPECT_EQ(SolveLp(free)->status, SolveStatus::kUnbounded);
  LinearProgram rows(Sense::kMinimize);  // 0 >= 1
  rows.Add(Constraint{"impossible", 1, kInfinity});
  const auto solution = SolveLp(rows);
  ASSERT_TRUE(solution.ok()) << solution.status();
  EXPECT_EQ(solution->status, SolveStatus::kInfeasible);
  EXPECT_THAT(solution->conflict, ElementsAre("impossible"));
}

TEST(Lp, ABudgetOfIterationsEndsTheSolve) {
  RandomStream random(3);
  LinearProgram program(Sense::kMaximize);
  for (int j = 0; j < 60; ++j) program.Add(Variable{"x", 0, kInfinity, 1 + random.Uniform()});
  for (int r = 0; r < 60; ++r) {
    const ConstraintId c = program.Add(Constraint{"c", -kInfinity, 10});
    for (int j = 0; j < 60; ++j) program.AddTerm(c, static_cast<VariableId>(j), 0.1 + random.Uniform());
  }
  SolveLimits limits;
  limits.iterations = 2;
  EXPECT_EQ(SolveLp(program, limits)->status, SolveStatus::kLimit);
  EXPECT_EQ(SolveLp(program)->status, SolveStatus::kOptimal);
}

TEST(Lp, BadProgramsAreNamedNotSolved) {
  const auto error = [](const LinearProgram& program) {
    return std::string(SolveLp(program).status().message());
  };
  LinearProgram crossed(Sense::kMinimize);
  crossed.Add(Variable{"x", 2, 1});
  EXPECT_THAT(error(crossed), HasSubstr("'x'"));
  LinearProgram nan(Sense::kMinimize);
  nan.Add(Constraint{"row", std::nan(""), 1});
  EXPECT_THAT(error(nan), HasSubstr("'row'"));
  LinearProgram infinite(Sense::kMinimize);
  infinite.Add(Variable{"x", 0, 1, kInfinity});
  EXPECT_THAT(error(infinite), HasSubstr("objective"));
  LinearProgram dangling(Sense::kMinimize);
  dangling.AddTerm(dangling.Add(Constraint{"row", 0, 1}), static_cast<VariableId>(3), 1);
  EXPECT_THAT(error(dangling), HasSubstr("does not exist"));
  LinearProgram huge(Sense::kMinimize);
  huge.AddTerm(huge.Add(Constraint{"row", 0, 1}), huge.Add(Variable{"x"}), kInfinity);
  EXPECT_THAT(error(huge), HasSubstr("not finite"));
}

TEST(Lp, EqualProgramsGiveEqualBitsAndSayNothing) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  RandomStream random(11);
  for (int trial = 0; trial < 20; ++trial) {
    const LinearProgram program = RandomProgram(random, 20, 8, false);
    const auto a = SolveLp(program), b = SolveLp(program);
    ASSERT_EQ(a->status, b->status);
    EXPECT_EQ(a->values, b->values);
    EXPECT_EQ(a->duals, b->duals);
    EXPECT_EQ(a->iterations, b->iterations);
  }
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace orrery
