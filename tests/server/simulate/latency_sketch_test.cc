#include "server/simulate/latency_sketch.h"

#include <gtest/gtest.h>

#include <cmath>

#include "scheduler/base/random.h"

namespace orrery::simulate {
namespace {

TEST(LatencySketch, EqualsTheExactSummaryWhileItFits) {
  RandomStream random(3);
  LatencySketch sketch;
  std::vector<double> all;
  for (int i = 0; i < 5000; ++i) {
    const double value = std::floor(random.Uniform() * 200) / 8;
    const int64_t count = 1 + static_cast<int64_t>(random.Below(4));
    sketch.Add(value, count);
    for (int64_t k = 0; k < count; ++k) all.push_back(value);
  }
  const auto expected = bench::Summarize(&all);
  const auto got = sketch.Summarize();
  ASSERT_TRUE(got.has_value());
  EXPECT_NEAR(got->mean, expected->mean, 1e-9);
  EXPECT_NEAR(got->std_dev, expected->std_dev, 1e-9);
  EXPECT_EQ(got->percentiles, expected->percentiles);
}

TEST(LatencySketch, StaysWithinItsErrorWhenItNoLongerFits) {
  RandomStream random(4);
  LatencySketch sketch;
  std::vector<double> all;
  for (int i = 0; i < 1'300'000; ++i) {
    const double value = std::exp(20 * random.Uniform() - 8);
    sketch.Add(value);
    all.push_back(value);
  }
  const auto expected = bench::Summarize(&all);
  const auto got = sketch.Summarize();
  EXPECT_NEAR(got->mean, expected->mean, 1e-9 * expected->mean);
  for (size_t i = 0; i < bench::kPercentiles.size(); ++i) {
    EXPECT_NEAR(got->percentiles[i], expected->percentiles[i], expected->percentiles[i] / 500);
  }
}

TEST(LatencySketch, NothingComesOfNothing) { EXPECT_FALSE(LatencySketch().Summarize().has_value()); }

}  // namespace
}  // namespace orrery::simulate
