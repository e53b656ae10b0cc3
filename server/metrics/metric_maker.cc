#include "server/metrics/metric_maker.h"

#include <algorithm>
#include <cmath>

namespace orrery {

prometheus::Counter* MetricMaker::Counter(const char* name, const char* help,
                                          const MetricLabels& labels) const {
  return &prometheus::BuildCounter().Name(name).Help(help).Register(*registry_).Add(labels);
}
prometheus::Gauge* MetricMaker::Gauge(const char* name, const char* help, const MetricLabels& labels) const {
  return &prometheus::BuildGauge().Name(name).Help(help).Register(*registry_).Add(labels);
}
prometheus::Histogram* MetricMaker::Histogram(const char* name, const char* help, const MetricLabels& labels,
                                              const MetricBuckets& buckets) const {
  return &prometheus::BuildHistogram().Name(name).Help(help).Register(*registry_).Add(labels, buckets);
}

MetricBuckets Decades(double from, double to) {
  MetricBuckets buckets;
  for (double decade = from; decade < to * 1.001; decade *= 10) {
    for (const double step : {1.0, 2.5, 5.0}) {
      if (decade * step < to * 1.001) buckets.push_back(decade * step);
    }
  }
  return buckets;
}

MetricBuckets PowersOfTwo(int last) {
  MetricBuckets buckets;
  for (int i = 0; i <= last; ++i) buckets.push_back(std::ldexp(1.0, i));
  return buckets;
}

void CatchUp(prometheus::Counter* counter, int64_t total) {
  const double behind = static_cast<double>(total) - counter->Value();
  if (behind > 0) counter->Increment(behind);
}

PolicyObjective::PolicyObjective(const MetricMaker& maker, const MetricLabels& labels)
    : maker_(maker),
      labels_(labels),
      value_(maker_.Gauge("orrery_policy_objective", "Objective value of the last decision", labels)) {}

void PolicyObjective::Show(const DecisionRecord& why) {
  value_->Set(why.value);
  if (std::isnan(why.bound)) return;
  if (bound_gap_ == nullptr) {
    bound_gap_ =
        maker_.Gauge("orrery_policy_bound_gap_ratio",
                     "|objective - bound| / larger of the two of the last decision; 0: optimal", labels_);
  }
  const double scale = std::max(std::abs(why.value), std::abs(why.bound));
  bound_gap_->Set(scale > 0 ? std::abs(why.value - why.bound) / scale : 0);
}

}  // namespace orrery
