// Summary statistics of a stream of latencies in bounded memory. Exact (bench::Summarize) up to a million
// distinct runs of equal values; beyond that mean and deviation stay exact and percentiles come from buckets
// of 1/512 relative width.
#ifndef ORRERY_SERVER_SIMULATE_LATENCY_SKETCH_H_
#define ORRERY_SERVER_SIMULATE_LATENCY_SKETCH_H_

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "server/bench/statistics.h"

namespace orrery::simulate {

class LatencySketch {
 public:
  // `count` times the value; finite and >= 0.
  void Add(double value, int64_t count = 1);
  int64_t count() const { return count_; }
  double max() const { return max_; }
  // Nothing when empty.
  std::optional<bench::Summary> Summarize() const;
  // (value, share of values at or below it), ascending, at most `points`.
  std::vector<std::pair<double, double>> Distribution(size_t points) const;

 private:
  using Run = std::pair<double, int64_t>;
  static constexpr size_t kMaxRuns = size_t{1} << 20;
  static size_t BucketOf(double value);
  static double MiddleOf(size_t bucket);
  void Spill();
  std::vector<Run> SortedRuns() const;

  int64_t count_ = 0;
  double mean_ = 0, squares_ = 0, max_ = 0;  // Welford's sums
  std::vector<Run> runs_;                    // until spilled
  std::vector<int64_t> buckets_;             // since then
};

}  // namespace orrery::simulate

#endif  // ORRERY_SERVER_SIMULATE_LATENCY_SKETCH_H_
