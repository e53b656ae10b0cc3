// A quantity over a run of unknown length in bounded memory: means over buckets of equal width, which doubles
// whenever the buckets run out.
#ifndef ORRERY_SERVER_SIMULATE_TIME_SERIES_H_
#define ORRERY_SERVER_SIMULATE_TIME_SERIES_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "scheduler/base/time.h"

namespace orrery::simulate {

class TimeSeries {
 public:
  void Add(Time at, double value) {
    size_t bucket = BucketOf(at);
    while (bucket >= kBuckets) {
      for (size_t i = 0; i < kBuckets / 2; ++i) {
        sums_[i] = sums_[2 * i] + sums_[2 * i + 1];
        counts_[i] = counts_[2 * i] + counts_[2 * i + 1];
      }
      std::fill(sums_.begin() + kBuckets / 2, sums_.end(), 0.0);
      std::fill(counts_.begin() + kBuckets / 2, counts_.end(), 0);
      ++doublings_;
      bucket = BucketOf(at);
    }
    sums_[bucket] += value;
    ++counts_[bucket];
  }
  // (seconds, mean); buckets without a value are left out.
  std::vector<std::pair<double, double>> Points() const {
    std::vector<std::pair<double, double>> points;
    for (size_t i = 0; i < kBuckets; ++i) {
      if (counts_[i] == 0) continue;
      points.emplace_back(static_cast<double>(i) * static_cast<double>(kFirstWidthNs << doublings_) * 1e-9,
                          sums_[i] / static_cast<double>(counts_[i]));
    }
    return points;
  }

 private:
  static constexpr size_t kBuckets = 512;
  static constexpr int64_t kFirstWidthNs = 1'000'000;
  // A division by a constant and a shift: this is done for every step.
  size_t BucketOf(Time at) const { return static_cast<size_t>(at.ns / kFirstWidthNs) >> doublings_; }
  int doublings_ = 0;
  std::vector<double> sums_ = std::vector<double>(kBuckets, 0.0);
  std::vector<int64_t> counts_ = std::vector<int64_t>(kBuckets, 0);
};

}  // namespace orrery::simulate

#endif  // ORRERY_SERVER_SIMULATE_TIME_SERIES_H_
