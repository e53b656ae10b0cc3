#include "server/bench/statistics.h"

#include <algorithm>
#include <cmath>

#include "scheduler/base/check.h"

namespace orrery::bench {

double Percentile(absl::Span<const double> sorted, double p) {
  ORRERY_CHECK(!sorted.empty());
  const double position = p / 100 * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(position);
  if (below + 1 >= sorted.size()) return sorted.back();
  const double weight = position - static_cast<double>(below);
  return sorted[below] + (sorted[below + 1] - sorted[below]) * weight;
}

std::optional<Summary> Summarize(std::vector<double>* sample) {
  if (sample->empty()) return std::nullopt;
  std::sort(sample->begin(), sample->end());
  const double n = static_cast<double>(sample->size());
  Summary summary;
  for (const double x : *sample) summary.mean += x;
  summary.mean /= n;
  double squares = 0;
  for (const double x : *sample) squares += (x - summary.mean) * (x - summary.mean);
  summary.std_dev = std::sqrt(squares / n);
  summary.median = Percentile(*sample, 50);
  for (size_t i = 0; i < kPercentiles.size(); ++i) {
    summary.percentiles[i] = Percentile(*sample, kPercentiles[i]);
  }
  return summary;
}

}  // namespace orrery::bench
