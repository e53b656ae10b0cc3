// The fitted cost model against batch least squares computed by elimination, the constrained minimum against
// its optimality conditions, and what outliers, drift and one-sided histories do to it.
#include "scheduler/cost/online_cost.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "scheduler/base/random.h"

namespace orrery {
namespace {

constexpr size_t kN = OnlineStepCost::kFeatures;
using Vector = OnlineStepCost::Vector;
using Matrix = std::array<Vector, kN>;

double Uniform(RandomStream* random) { return static_cast<double>(random->Below(1 << 30)) / (1 << 30); }

StepShape RandomStep(RandomStream* random) {
  StepShape shape;
  const auto decodes = random->Below(64);
  for (uint64_t i = 0; i < decodes; ++i) shape.AddDecode(static_cast<int32_t>(1 + random->Below(3000)));
  const auto chunks = decodes == 0 ? 1 + random->Below(3) : random->Below(3);
  for (uint64_t i = 0; i < chunks; ++i) {
    shape.AddChunk(static_cast<int32_t>(random->Below(2000)), static_cast<int32_t>(1 + random->Below(500)));
  }
  return shape;
}

Vector FeaturesOf(const StepShape& shape) {
  return {1, static_cast<double>(shape.decodes), static_cast<double>(shape.decode_context),
          static_cast<double>(shape.prefill_tokens), shape.prefill_squares};
}

double Dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (size_t i = 0; i < kN; ++i) sum += a[i] * b[i];
  return sum;
}

constexpr Vector kTruth = {5, 0.02, 1e-4, 0.03, 2e-6};

Duration Ms(double ms) { return Duration::Nanoseconds(std::llround(ms * 1e6)); }

// Weighted least squares over all steps at once: Gauss-Jordan on the normal equations in extended precision.
Vector BatchFit(const std::vector<std::pair<StepShape, double>>& steps, double forgetting) {
  long double m[kN][kN + 1] = {};
  long double weight = 1;
  for (size_t s = steps.size(); s-- > 0; weight *= forgetting) {
    const Vector x = FeaturesOf(steps[s].first);
    const long double w = weight / (steps[s].second * steps[s].second);
    for (size_t i = 0; i < kN; ++i) {
      for (size_t j = 0; j < kN; ++j) m[i][j] += w * x[i] * x[j];
      m[i][kN] += w * x[i] * steps[s].second;
    }
  }
  for (size_t p = 0; p < kN; ++p) {
    for (size_t i = 0; i < kN; ++i) {
      if (i == p) continue;
      const long double factor = m[i][p] / m[p][p];
      for (size_t j = 0; j <= kN; ++j) m[i][j] -= factor * m[p][j];
    }
  }
  Vector c;
  for (size_t i = 0; i < kN; ++i) c[i] = static_cast<double>(m[i][kN] / m[i][i]);
  return c;
}

TEST(OnlineCost, EqualsBatchLeastSquares) {
  for (const double forgetting : {1.0, 0.999}) {
    RandomStream random(7);
    OnlineStepCost cost(nullptr, forgetting);
    std::vector<std::pair<StepShape, double>> steps;
    for (int i = 0; i < 3000; ++i) {
      const StepShape shape = RandomStep(&random);
      const Duration took = Ms(Dot(kTruth, FeaturesOf(shape)) * (0.9 + 0.2 * Uniform(&random)));
      steps.emplace_back(shape, took.milliseconds());
      cost.Observe(shape, took);
    }
    ASSERT_EQ(cost.outliers(), 0);
    const Vector batch = BatchFit(steps, forgetting), online = cost.coefficients();
    for (size_t i = 0; i < kN; ++i)
      EXPECT_NEAR(online[i], batch[i], 1e-5 * batch[i]) << i << ", " << forgetting;
  }
}

// Minimum of a convex function over c >= 0: no gradient component is negative, and none is positive where c
// is.
TEST(OnlineCost, ConstrainedMinimumMeetsItsConditions) {
  RandomStream random(3);
  int constrained = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    Matrix root, a{};
    Vector b;
    for (size_t i = 0; i < kN; ++i) {
      b[i] = Uniform(&random) - 0.4;
      for (size_t j = 0; j < kN; ++j) root[i][j] = Uniform(&random) - 0.3;
    }
    for (size_t i = 0; i < kN; ++i) {
      for (size_t j = 0; j < kN; ++j) {
        for (size_t k = 0; k < kN; ++k) a[i][j] += root[k][i] * root[k][j];
      }
      a[i][i] += 0.01;
    }
    const Vector c = SolveNonNegative(a, b);
    for (size_t i = 0; i < kN; ++i) {
      const double gradient = Dot(a[i], c) - b[i];
      EXPECT_GE(c[i], 0);
      EXPECT_GE(gradient, -1e-9);
      EXPECT_LE(c[i] * gradient, 1e-9);
      constrained += c[i] == 0;
    }
  }
  EXPECT_GT(constrained, 2000);
}

TEST(OnlineCost, PositiveAndMonotoneWhateverItSees) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    RandomStream random(seed);
    OnlineStepCost cost;
    for (int i = 0; i < 300; ++i) {
      // Times that have nothing to do with the steps, and fall with their size.
      const StepShape shape = RandomStep(&random);
      cost.Observe(shape, Ms(1 + 1e4 * Uniform(&random) / shape.tokens()));
      for (const double c : cost.coefficients()) ASSERT_GE(c, 0);
      StepShape more = shape;
      const Duration before = cost.Predict(shape);
      ASSERT_GT(before.ns, 0);
      more.AddDecode(100);
      more.AddChunk(50, 20);
      ASSERT_GE(cost.Predict(more), before);
    }
  }
}

TEST(OnlineCost, StallsDoNotMoveIt) {
  RandomStream random(5);
  OnlineStepCost cost;
  for (int i = 0; i < 2000; ++i) {
    const StepShape shape = RandomStep(&random);
    const double stall = i % 50 == 40 ? 100 : 1;
    cost.Observe(shape, Ms(stall * Dot(kTruth, FeaturesOf(shape)) * (0.95 + 0.1 * Uniform(&random))));
  }
  EXPECT_GE(cost.outliers(), 39);
  for (int i = 0; i < 100; ++i) {
    const StepShape shape = RandomStep(&random);
    const double ms = Dot(kTruth, FeaturesOf(shape));
    EXPECT_NEAR(cost.Predict(shape).milliseconds(), ms, 0.1 * ms);
  }
}

// With the memory of ten thousand steps.
TEST(OnlineCost, AChangeIsBelieved) {
  for (const double factor : {4.0, 30.0, 0.25, 1 / 30.0}) {
    RandomStream random(6);
    OnlineStepCost cost;
    for (int i = 0; i < 3000; ++i) {
      const StepShape shape = RandomStep(&random);
      cost.Observe(shape, Ms((i < 2000 ? 1 : factor) * Dot(kTruth, FeaturesOf(shape))));
    }
    const StepShape shape = RandomStep(&random);
    const double ms = factor * Dot(kTruth, FeaturesOf(shape));
    EXPECT_NEAR(cost.Predict(shape).milliseconds(), ms, 0.1 * ms) << factor;
  }
}

TEST(OnlineCost, RememberWhatIsNotSeenAnyMore) {
  RandomStream random(8);
  OnlineStepCost cost(nullptr, 0.99);
  for (int i = 0; i < 500; ++i) {
    const StepShape shape = RandomStep(&random);
    cost.Observe(shape, Ms(Dot(kTruth, FeaturesOf(shape))));
  }
  for (int i = 0; i < 20000; ++i) {  // a long night of decodes alone
    StepShape shape;
    shape.AddDecode(static_cast<int32_t>(1 + random.Below(3000)));
    cost.Observe(shape, Ms(Dot(kTruth, FeaturesOf(shape))));
  }
  StepShape chunk;
  chunk.AddChunk(0, 512);
  const double ms = Dot(kTruth, FeaturesOf(chunk));
  EXPECT_NEAR(cost.Predict(chunk).milliseconds(), ms, 0.05 * ms);
}

TEST(OnlineCost, APriorIsBelievedUntilStepsSayOtherwise) {
  const auto prior = NewLinearCost({.alpha_decode = 5,
                                    .per_seq = 0.02,
                                    .per_kv_token = 1e-4,
                                    .alpha_prefill = 5,
                                    .per_token = 0.03,
                                    .per_token_sq = 2e-6});
  OnlineStepCost cost(prior.get());
  EXPECT_EQ(cost.observed(), 0);
  RandomStream random(9);
  for (int i = 0; i < 100; ++i) {
    const StepShape shape = RandomStep(&random);
    EXPECT_NEAR(cost.Predict(shape).milliseconds(), prior->Predict(shape).milliseconds(), 1e-3);
  }
  // The machine is slower or faster; a few steps tell.
  for (const double factor : {3.0, 100.0, 0.01}) {
    OnlineStepCost wrong(prior.get());
    for (int i = 0; i < 500; ++i) {
      const StepShape shape = RandomStep(&random);
      wrong.Observe(shape, Ms(factor * Dot(kTruth, FeaturesOf(shape))));
    }
    const StepShape shape = RandomStep(&random);
    const double ms = factor * prior->Predict(shape).milliseconds();
    EXPECT_NEAR(wrong.Predict(shape).milliseconds(), ms, 0.15 * ms) << factor;
  }
}

TEST(OnlineCost, NothingSeenNothingSaid) {
  OnlineStepCost cost;
  StepShape shape;
  shape.AddDecode(10);
  EXPECT_EQ(cost.Predict(shape).ns, 0);
  cost.Observe({}, Ms(5));
  cost.Observe(shape, Duration{});
  EXPECT_EQ(cost.observed(), 0);
  cost.Observe(shape, Ms(5));
  EXPECT_NEAR(cost.Predict(shape).milliseconds(), 5, 1e-3);
}

}  // namespace
}  // namespace orrery
