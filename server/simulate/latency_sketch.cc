#include "server/simulate/latency_sketch.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace orrery::simulate {
namespace {

// The bucket is the exponent and the leading bits of the mantissa, from 2^-32 on.
constexpr int kMantissaBits = 9;
constexpr int kShift = 52 - kMantissaBits;
constexpr uint64_t kLowest = uint64_t{1023 - 32} << kMantissaBits;
constexpr size_t kBuckets = size_t{96} << kMantissaBits;  // up to 2^64

}  // namespace

size_t LatencySketch::BucketOf(double value) {
  const uint64_t bits = std::bit_cast<uint64_t>(value) >> kShift;
  return bits <= kLowest ? 0 : std::min<size_t>(bits - kLowest, kBuckets - 1);
}

double LatencySketch::MiddleOf(size_t bucket) {
  if (bucket == 0) return 0;
  const auto edge = [](size_t b) { return std::bit_cast<double>((b + kLowest) << kShift); };
  return (edge(bucket) + edge(bucket + 1)) / 2;
}

void LatencySketch::Add(double value, int64_t count) {
  if (count == 0) return;
  const double delta = value - mean_;
  count_ += count;
  mean_ += delta * static_cast<double>(count) / static_cast<double>(count_);
  squares_ += delta * (value - mean_) * static_cast<double>(count);
  max_ = std::max(max_, value);
  if (!buckets_.empty()) {
    buckets_[BucketOf(value)] += count;
  } else if (!runs_.empty() && runs_.back().first == value) {
    runs_.back().second += count;
  } else {
    runs_.emplace_back(value, count);
    if (runs_.size() > kMaxRuns) Spill();
  }
}

void LatencySketch::Spill() {
  buckets_.assign(kBuckets, 0);
  for (const auto& [value, count] : runs_) buckets_[BucketOf(value)] += count;
  std::vector<Run>().swap(runs_);
}

std::vector<LatencySketch::Run> LatencySketch::SortedRuns() const {
  std::vector<Run> runs = runs_;
  std::sort(runs.begin(), runs.end());
  for (size_t i = 0; i < buckets_.size(); ++i) {
    if (buckets_[i] > 0) runs.emplace_back(std::min(MiddleOf(i), max_), buckets_[i]);
  }
  return runs;
}

std::optional<bench::Summary> LatencySketch::Summarize() const {
  if (count_ == 0) return std::nullopt;
  const std::vector<Run> runs = SortedRuns();
  std::vector<int64_t> up_to(runs.size());  // values in the runs before and this one
  int64_t sum = 0;
  for (size_t i = 0; i < runs.size(); ++i) up_to[i] = sum += runs[i].second;
  // Order statistic `rank`, from 0.
  const auto at = [&](int64_t rank) {
    return runs[static_cast<size_t>(std::upper_bound(up_to.begin(), up_to.end(), rank) - up_to.begin())]
        .first;
  };
  const auto percentile = [&](double p) {
    const double position = p / 100 * static_cast<double>(count_ - 1);
    const auto below = static_cast<int64_t>(position);
    const double low = at(below);
    return low + (at(std::min(below + 1, count_ - 1)) - low) * (position - static_cast<double>(below));
  };
  bench::Summary summary;
  summary.mean = mean_;
  summary.std_dev = std::sqrt(std::max(0.0, squares_ / static_cast<double>(count_)));
  summary.median = percentile(50);
  for (size_t i = 0; i < bench::kPercentiles.size(); ++i) {
    summary.percentiles[i] = percentile(bench::kPercentiles[i]);
  }
  return summary;
}

std::vector<std::pair<double, double>> LatencySketch::Distribution(size_t points) const {
  std::vector<std::pair<double, double>> out;
  int64_t sum = 0;
  double next = 0;
  for (const auto& [value, count] : SortedRuns()) {
    sum += count;
    const double share = static_cast<double>(sum) / static_cast<double>(count_);
    if (share < next && sum < count_) continue;
    out.emplace_back(value, share);
    next = share + 1.0 / static_cast<double>(points);
  }
  return out;
}

}  // namespace orrery::simulate
