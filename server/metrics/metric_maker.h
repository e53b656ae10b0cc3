// What the metrics of one registry are made with: looked up once, used as handles afterwards.
#ifndef ORRERY_SERVER_METRICS_METRIC_MAKER_H_
#define ORRERY_SERVER_METRICS_METRIC_MAKER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "scheduler/types/decision_record.h"

namespace orrery {

using MetricLabels = std::map<std::string, std::string>;
using MetricBuckets = prometheus::Histogram::BucketBoundaries;

inline constexpr char kDecisionHelp[] = "Time of a decision";

class MetricMaker {
 public:
  explicit MetricMaker(std::shared_ptr<prometheus::Registry> registry) : registry_(std::move(registry)) {}

  prometheus::Counter* Counter(const char* name, const char* help, const MetricLabels& labels) const;
  prometheus::Gauge* Gauge(const char* name, const char* help, const MetricLabels& labels) const;
  prometheus::Histogram* Histogram(const char* name, const char* help, const MetricLabels& labels,
                                   const MetricBuckets& buckets) const;

 private:
  std::shared_ptr<prometheus::Registry> registry_;
};

// 1, 2.5, 5 per decade.
MetricBuckets Decades(double from, double to);
// 1 to 2^last.
MetricBuckets PowersOfTwo(int last);
// Raises a counter to a total that somebody else keeps.
void CatchUp(prometheus::Counter* counter, int64_t total);

// Objective of one policy's last decision, and its gap to the bound, which exists once the policy has named
// one.
class PolicyObjective {
 public:
  PolicyObjective(const MetricMaker& maker, const MetricLabels& labels);
  void Show(const DecisionRecord& why);

 private:
  MetricMaker maker_;
  MetricLabels labels_;
  prometheus::Gauge *value_, *bound_gap_ = nullptr;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_METRICS_METRIC_MAKER_H_
