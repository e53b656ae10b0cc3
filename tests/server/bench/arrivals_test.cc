#include "server/bench/arrivals.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace orrery::bench {
namespace {

struct Moments {
  double mean = 0;
  double cv = 0;          // standard deviation over mean
  double lag_one = 0;     // correlation of neighbouring gaps
  double dispersion = 0;  // variance over mean of the arrivals in windows of 10 mean gaps
};

Moments Measure(ArrivalSpec spec, uint64_t seed, int n) {
  ArrivalProcess process(spec, seed, 0);
  std::vector<double> gaps(n);
  Moments m;
  for (double& gap : gaps) m.mean += gap = process.NextGap();
  m.mean /= n;
  double squares = 0;
  double products = 0;
  for (int i = 0; i < n; ++i) {
    squares += (gaps[i] - m.mean) * (gaps[i] - m.mean);
    if (i > 0) products += (gaps[i] - m.mean) * (gaps[i - 1] - m.mean);
  }
  m.cv = std::sqrt(squares / n) / m.mean;
  m.lag_one = products / squares;
  std::vector<double> counts(n / 20, 0);  // windows well inside the drawn time
  const double window = 10 / spec.rate;
  double now = 0;
  for (const double gap : gaps) {
    now += gap;
    if (now / window < static_cast<double>(counts.size())) ++counts[static_cast<size_t>(now / window)];
  }
  double count_mean = 0;
  double count_squares = 0;
  for (const double c : counts) count_mean += c / static_cast<double>(counts.size());
  for (const double c : counts) count_squares += (c - count_mean) * (c - count_mean);
  m.dispersion = count_squares / static_cast<double>(counts.size()) / count_mean;
  return m;
}

constexpr int kDraws = 200'000;

TEST(Arrivals, PoissonHasTheMomentsOfAnExponential) {
  const Moments m = Measure({ArrivalKind::kPoisson, 25, 1}, 1, kDraws);
  EXPECT_NEAR(m.mean * 25, 1, 0.01);
  EXPECT_NEAR(m.cv, 1, 0.01);
  EXPECT_NEAR(m.lag_one, 0, 0.01);
  EXPECT_NEAR(m.dispersion, 1, 0.05);  // a process rescaled to a fixed total would have less
}

TEST(Arrivals, GammaHasMeanAndBurstiness) {
  for (const double shape : {0.1, 0.5, 1.0, 4.0, 50.0}) {
    const Moments m = Measure({ArrivalKind::kGamma, 3, shape}, 2, kDraws);
    EXPECT_NEAR(m.mean * 3, 1, 0.03) << shape;
    EXPECT_NEAR(m.cv * std::sqrt(shape), 1, 0.03) << shape;
    EXPECT_NEAR(m.lag_one, 0, 0.02) << shape;
  }
}

// The third moment tells a gamma from other laws of the same mean and variance: skewness = 2 / sqrt(shape).
TEST(Arrivals, GammaHasTheSkewnessOfAGamma) {
  for (const double shape : {0.5, 2.0}) {
    ArrivalProcess process({ArrivalKind::kGamma, 1, shape}, 3, 0);
    double third = 0;
    for (int i = 0; i < kDraws; ++i)
      third += std::pow((process.NextGap() - 1) * std::sqrt(shape), 3) / kDraws;
    EXPECT_NEAR(third * std::sqrt(shape) / 2, 1, 0.08) << shape;
  }
}

TEST(Arrivals, ConstantAndInfiniteRates) {
  ArrivalProcess constant({ArrivalKind::kConstant, 8, 1}, 1, 0);
  ArrivalProcess burst({ArrivalKind::kPoisson, std::numeric_limits<double>::infinity(), 1}, 1, 0);
  for (int i = 0; i < 10; ++i) {
    EXPECT_DOUBLE_EQ(constant.NextGap(), 0.125);
    EXPECT_EQ(burst.NextGap(), 0);
  }
}

TEST(Arrivals, DependOnSeedAndStreamAlone) {
  ArrivalProcess a({ArrivalKind::kGamma, 2, 0.5}, 5, 1);
  ArrivalProcess b({ArrivalKind::kGamma, 2, 0.5}, 5, 1);
  ArrivalProcess other_seed({ArrivalKind::kGamma, 2, 0.5}, 6, 1);
  ArrivalProcess other_stream({ArrivalKind::kGamma, 2, 0.5}, 5, 2);
  int equal = 0;
  for (int i = 0; i < 100; ++i) {
    const double gap = a.NextGap();
    EXPECT_EQ(gap, b.NextGap());
    equal += gap == other_seed.NextGap();
    equal += gap == other_stream.NextGap();
  }
  EXPECT_EQ(equal, 0);
}

TEST(Arrivals, UnknownNameIsAnError) {
  EXPECT_TRUE(ParseArrivalKind("gamma").ok());
  EXPECT_EQ(ParseArrivalKind("weibull").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace orrery::bench
