// Summary statistics of a sample, exact: percentiles by linear interpolation between order statistics (the
// default of numpy), the standard deviation of the sample itself (divided by n).
#ifndef ORRERY_SERVER_BENCH_STATISTICS_H_
#define ORRERY_SERVER_BENCH_STATISTICS_H_

#include <array>
#include <optional>
#include <vector>

#include "absl/types/span.h"

namespace orrery::bench {

// The percentiles every summary holds, in this order.
inline constexpr std::array<double, 5> kPercentiles = {50, 90, 95, 99, 99.9};

struct Summary {
  double mean = 0;
  double median = 0;
  double std_dev = 0;
  std::array<double, kPercentiles.size()> percentiles = {};
};

// Nothing for an empty sample. Sorts the sample.
std::optional<Summary> Summarize(std::vector<double>* sample);

// The p-th percentile, p in [0, 100], of a sorted sample that is not empty.
double Percentile(absl::Span<const double> sorted, double p);

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_STATISTICS_H_
