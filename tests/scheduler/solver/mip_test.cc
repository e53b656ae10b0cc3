// Integer programs against trying every point.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "scheduler/solver/solver.h"
#include "tests/scheduler/solver/random_program.h"

namespace orrery {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Best {
  double objective;
  std::vector<double> point;
};

// Every integer point within the variables' limits.
std::optional<Best> TryEveryPoint(const LinearProgram& program) {
  std::optional<Best> best;
  std::vector<double> x;
  const auto visit = [&](auto& self) -> void {
    if (x.size() < program.variables().size()) {
      const Variable& v = program.variables()[x.size()];
      for (double value = std::ceil(v.lower); value <= v.upper; ++value) {
        x.push_back(value);
        self(self);
        x.pop_back();
      }
      return;
    }
    const PointCheck check = CheckPoint(program, x);
    if (check.worst_violation > 1e-9) return;
    const bool better = !best || (program.sense() == Sense::kMinimize ? check.objective < best->objective
                                                                      : check.objective > best->objective);
    if (better) best = Best{check.objective, x};
  };
  visit(visit);
  return best;
}

// max sum of values of items with 3 weights each, at most half of all in every dimension.
LinearProgram Knapsack(uint64_t seed, int items) {
  RandomStream random(seed);
  LinearProgram program(Sense::kMaximize);
  for (int d = 0; d < 3; ++d)
    program.Add(Constraint{"weight " + std::to_string(d), -kInfinity, 25.0 * items});
  for (int i = 0; i < items; ++i) {
    const double value = 1.0 + static_cast<double>(random.Below(100));
    const VariableId x = program.Add(Variable{"item " + std::to_string(i), 0, 1, value, true});
    for (int d = 0; d < 3; ++d)
      program.AddTerm(static_cast<ConstraintId>(d), x, 1.0 + static_cast<double>(random.Below(100)));
  }
  return program;
}

TEST(Mip, RandomProgramsAgreeWithTryingEveryPoint) {
  RandomStream random(99);
  int optimal = 0, infeasible = 0;
  for (int trial = 0; trial < 250; ++trial) {
    const LinearProgram program =
        RandomProgram(random, 1 + static_cast<int>(random.Below(4)), static_cast<int>(random.Below(5)), true);
    const auto best = TryEveryPoint(program);
    const std::vector<double>* start = best && trial % 2 == 0 ? &best->point : nullptr;
    const auto solution = SolveMip(program, {}, start);
    ASSERT_TRUE(solution.ok()) << solution.status();
    SCOPED_TRACE(trial);
    if (!best) {
      EXPECT_EQ(solution->status, SolveStatus::kInfeasible);
      EXPECT_FALSE(solution->has_point);
      ++infeasible;
      continue;
    }
    ++optimal;
    ASSERT_EQ(solution->status, SolveStatus::kOptimal);
    ASSERT_TRUE(solution->has_point);
    EXPECT_DOUBLE_EQ(solution->objective, best->objective);
    EXPECT_DOUBLE_EQ(solution->bound, best->objective);
    const PointCheck check = CheckPoint(program, solution->values);
    EXPECT_LE(check.worst_violation, 1e-9);
    EXPECT_EQ(check.worst_fraction, 0.0);
  }
  EXPECT_GT(optimal, 100);
  EXPECT_GT(infeasible, 20);
}

TEST(Mip, BoundHoldsWhenTheNodesRunOut) {
  const LinearProgram program = Knapsack(5, 30);
  const auto full = SolveMip(program);
  ASSERT_EQ(full->status, SolveStatus::kOptimal);
  EXPECT_GT(full->nodes, 1);
  SolveLimits limits;
  limits.nodes = 1;
  const auto cut = SolveMip(program, limits);
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(cut->status, SolveStatus::kLimit);
  EXPECT_GE(cut->bound, full->objective - 1e-6);
  EXPECT_TRUE(!cut->has_point || cut->objective <= full->objective + 1e-6);
}

TEST(Mip, StartIsKeptOrBeaten) {
  const LinearProgram program = Knapsack(5, 30);
  const auto full = SolveMip(program);
  SolveLimits limits;
  limits.nodes = 1;
  const auto cut = SolveMip(program, limits, &full->values);
  ASSERT_TRUE(cut->has_point);
  EXPECT_DOUBLE_EQ(cut->objective, full->objective);
  const std::vector<double> everything(30, 1.0), short_one(29, 0.0);
  EXPECT_THAT(std::string(SolveMip(program, {}, &everything).status().message()), HasSubstr("weight"));
  EXPECT_FALSE(SolveMip(program, {}, &short_one).ok());
}

TEST(Mip, ContinuousAndIntegerTogether) {
  // max 2x + y, x integer, x + y <= 3.5, x <= 2.6: x = 2, y = 1.5.
  LinearProgram program(Sense::kMaximize);
  const VariableId x = program.Add(Variable{"x", 0, 2.6, 2, true}),
                   y = program.Add(Variable{"y", 0, kInfinity, 1});
  const ConstraintId c = program.Add(Constraint{"sum", -kInfinity, 3.5});
  program.AddTerm(c, x, 1);
  program.AddTerm(c, y, 1);
  const auto solution = SolveMip(program);
  ASSERT_EQ(solution->status, SolveStatus::kOptimal);
  EXPECT_NEAR(solution->objective, 5.5, 1e-6);
  EXPECT_EQ(solution->values[0], 2.0);
}

TEST(Mip, ConflictOrOnlyIntegralityInTheWay) {
  LinearProgram program(Sense::kMinimize);
  const VariableId x = program.Add(Variable{"x", 0, 10, 1, true});
  program.AddTerm(program.Add(Constraint{"half", 1, 1}), x, 2);  // x = 1/2
  auto solution = SolveMip(program);
  EXPECT_EQ(solution->status, SolveStatus::kInfeasible);
  EXPECT_THAT(solution->conflict, IsEmpty());
  program.AddTerm(program.Add(Constraint{"too far", 11, kInfinity}), x, 1);
  solution = SolveMip(program);
  EXPECT_EQ(solution->status, SolveStatus::kInfeasible);
  EXPECT_THAT(solution->conflict, testing::ElementsAre("too far"));
}

TEST(Mip, EqualProgramsGiveEqualTreesAndSayNothing) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const LinearProgram program = Knapsack(8, 25);
  const auto a = SolveMip(program), b = SolveMip(program);
  EXPECT_EQ(a->values, b->values);
  EXPECT_EQ(a->nodes, b->nodes);
  EXPECT_EQ(a->iterations, b->iterations);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace orrery
