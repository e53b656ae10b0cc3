#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/policy/registry.h"
#include "scheduler/predict/empirical.h"
#include "scheduler/predict/interval.h"
#include "scheduler/predict/oracle.h"

namespace orrery {
namespace {

SequenceView Of(int32_t generated, int32_t bound, uint32_t tenant = 0, uint64_t id = 1) {
  SequenceView view;
  view.id = SequenceId{id};
  view.num_generated = generated;
  view.max_new_tokens = bound;
  view.tenant = tenant;
  return view;
}

EmpiricalPredictor Learnt(const std::vector<int32_t>& lengths, const EmpiricalOptions& options) {
  EmpiricalPredictor predictor(options);
  for (const int32_t length : lengths) predictor.OnFinished(Of(length, 1000));
  return predictor;
}

// UT-7 of the design: history {3, 7, 8, 12, 20}, 7 generated, at most 32.
TEST(Empirical, ConditionalSample) {
  const auto predictor = Learnt({12, 3, 20, 7, 8}, {.window = 5, .min_own = 1, .initial_fill = 0});
  EXPECT_EQ(predictor.Quantile(Of(7, 32), 0.5), 12);
  EXPECT_EQ(predictor.Quantile(Of(7, 32), 0.625), 16);
  EXPECT_EQ(predictor.Quantile(Of(7, 32), 0), 7);
  EXPECT_EQ(predictor.Quantile(Of(7, 32), 1), 32);
  EXPECT_EQ(predictor.Quantile(Of(7, 10), 0.5), 10) << "cut to what the request allows";
  EXPECT_EQ(predictor.Quantile(Of(25, 32), 0.5), 29) << "beyond the longest: halfway to the bound";
}

TEST(Empirical, NewSequencesDrawFromTheWindow) {
  const auto predictor = Learnt({12, 3, 20, 7, 8}, {.window = 5, .min_own = 1, .initial_fill = 0});
  EXPECT_EQ(predictor.Quantile(Of(0, 32), 0), 3);
  EXPECT_EQ(predictor.Quantile(Of(0, 32), 0.41), 8);
  EXPECT_EQ(predictor.Quantile(Of(0, 32), 0.99), 20);
  EXPECT_EQ(predictor.Quantile(Of(0, 32), 1), 32) << "the bound";
}

TEST(Empirical, StartsCautious) {
  EmpiricalPredictor predictor({.window = 4, .min_own = 1, .initial_fill = 0.5});
  EXPECT_EQ(predictor.Quantile(Of(0, 500), 0), 500);
  predictor.OnFinished(Of(10, 500));
  predictor.OnFinished(Of(10, 500));
  EXPECT_EQ(predictor.Quantile(Of(0, 500), 0.49), 10);
  EXPECT_EQ(predictor.Quantile(Of(0, 500), 0.5), 500) << "half of the window is still the first guess";
  predictor.OnFinished(Of(10, 500));
  predictor.OnFinished(Of(10, 500));
  EXPECT_EQ(predictor.Quantile(Of(0, 500), 0.99), 10) << "and is gone when the window has turned over";
}

TEST(Empirical, OldLengthsLeaveTheWindow) {
  const auto predictor = Learnt({100, 100, 100, 5, 5, 5}, {.window = 3, .min_own = 1, .initial_fill = 0});
  EXPECT_EQ(predictor.Quantile(Of(0, 1000), 0.99), 5);
}

TEST(Empirical, TenantsHaveTheirOwnWindowsOnceKnown) {
  EmpiricalPredictor predictor({.window = 10, .min_own = 3, .initial_fill = 0});
  for (int i = 0; i < 6; ++i) predictor.OnFinished(Of(40, 1000, 1));
  EXPECT_EQ(predictor.Quantile(Of(0, 1000, 2), 0.5), 40) << "a stranger: the window over all";
  for (int i = 0; i < 2; ++i) predictor.OnFinished(Of(900, 1000, 2));
  EXPECT_EQ(predictor.Quantile(Of(0, 1000, 2), 0.1), 40);
  predictor.OnFinished(Of(900, 1000, 2));
  EXPECT_EQ(predictor.Quantile(Of(0, 1000, 2), 0.1), 900);
  EXPECT_EQ(predictor.Quantile(Of(0, 1000, 1), 0.9), 40);
}

TEST(Empirical, ManyTenantsStayBounded) {
  EmpiricalPredictor predictor({.window = 1, .min_own = 1, .initial_fill = 0});
  for (uint32_t tenant = 0; tenant < 3 * EmpiricalPredictor::kMaxTenants; ++tenant) {
    predictor.OnFinished(Of(7, 100, tenant));
  }
  EXPECT_EQ(predictor.Quantile(Of(0, 100, 2 * EmpiricalPredictor::kMaxTenants), 0.5), 7);
}

TEST(Interval, SpansLowToHigh) {
  const IntervalPredictor fixed({.low = 10, .high = 50, .alpha = 0});
  EXPECT_EQ(fixed.Quantile(Of(0, 100), 0), 10);
  EXPECT_EQ(fixed.Quantile(Of(0, 100), 0.5), 30);
  EXPECT_EQ(fixed.Quantile(Of(0, 100), 1), 50);
  EXPECT_EQ(fixed.Quantile(Of(0, 5), 0), 5) << "never more than the request allows";
  EXPECT_EQ(fixed.Quantile(Of(30, 100), 0), 30) << "never less than there is";
  EXPECT_EQ(fixed.Quantile(Of(60, 100), 1), 60) << "a wrong upper bound gives way";
  const IntervalPredictor relative({.low = 1, .high = 0, .alpha = 0.25});
  EXPECT_EQ(relative.Quantile(Of(0, 80), 0), 20);
  EXPECT_EQ(relative.Quantile(Of(0, 80), 1), 80);
}

TEST(Oracle, KnowsTheTruth) {
  auto table = std::make_shared<OracleTable>();
  table->Set(SequenceId{3}, 17);
  const OraclePredictor oracle(table, {});
  EXPECT_EQ(oracle.Quantile(Of(0, 100, 0, 3), 0), 17);
  EXPECT_EQ(oracle.Quantile(Of(0, 100, 0, 3), 1), 17);
  EXPECT_EQ(oracle.Quantile(Of(0, 100, 0, 4), 0.5), 100) << "not in the table: the bound";
}

TEST(Oracle, NoiseKeepsTheTruthInsideItsBounds) {
  auto table = std::make_shared<OracleTable>();
  const OraclePredictor oracle(table, {.noise = 0.3, .seed = 5});
  RandomStream random(1);
  double sum = 0;
  int wrong = 0;
  for (uint64_t id = 1; id <= 2000; ++id) {
    const auto truth = static_cast<int32_t>(1 + random.Below(500));
    table->Set(SequenceId{id}, truth);
    const SequenceView view = Of(0, 1000, 0, id);
    EXPECT_LE(oracle.Quantile(view, 0), truth);
    EXPECT_GE(oracle.Quantile(view, 1), truth);
    const int32_t point = oracle.Quantile(view, 0.5);
    EXPECT_LE(std::abs(point - truth), 0.3 * truth + 1);
    wrong += point != truth;
    sum += static_cast<double>(point) / truth;
  }
  EXPECT_GT(wrong, 1500);
  EXPECT_NEAR(sum / 2000, 1.0, 0.02);
}

// The contract of the interface, on every predictor there is.
TEST(Predictors, QuantilesAscendInsideTheirBounds) {
  std::vector<std::unique_ptr<LengthPredictor>> predictors;
  for (const PolicyInfo& info : SchedulerPolicies()) {
    if (info.kind != "predictor" || info.name == "oracle") continue;  // that one needs a table of truths
    predictors.push_back(*NewLengthPredictor(info.name));
  }
  auto table = std::make_shared<OracleTable>();
  for (uint64_t id = 0; id < 100; ++id) table->Set(SequenceId{id}, static_cast<int32_t>(1 + id * 3));
  predictors.push_back(std::make_unique<OraclePredictor>(table, OracleOptions{.noise = 0.9, .seed = 2}));
  ASSERT_GE(predictors.size(), 4u);
  RandomStream random(7);
  for (const auto& predictor : predictors) {
    for (int round = 0; round < 2000; ++round) {
      const auto bound = static_cast<int32_t>(1 + random.Below(300));
      SequenceView view = Of(static_cast<int32_t>(random.Below(static_cast<uint64_t>(bound))), bound,
                             static_cast<uint32_t>(random.Below(3)), random.Below(120));
      int32_t last = std::max(1, view.num_generated);
      for (const double q : {0.0, 0.01, 0.3, 0.5, 0.7, 0.99, 1.0}) {
        const int32_t length = predictor->Quantile(view, q);
        ASSERT_GE(length, last) << q;
        ASSERT_LE(length, bound) << q;
        last = length;
      }
      view.num_generated = bound;
      predictor->OnFinished(view);
    }
  }
}

}  // namespace
}  // namespace orrery
