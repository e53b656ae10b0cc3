// orrery_slo_attainment_ratio{class}: of the admitted requests that had an objective for TTFT or TPOT and are
// over, the share that met it. What failed or came to its deadline has missed; what its client gave up
// or a worker refused is left out. Classes are named by clients: the first kMostClasses are told apart, the
// rest are together in "other", and requests without a class in "default". One thread.
#ifndef ORRERY_SERVER_METRICS_SLO_ATTAINMENT_H_
#define ORRERY_SERVER_METRICS_SLO_ATTAINMENT_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/registry.h"

namespace orrery {

class SloAttainment {
 public:
  static constexpr size_t kMostClasses = 64;

  SloAttainment(prometheus::Registry* registry, std::map<std::string, std::string> labels)
      : family_(prometheus::BuildGauge()
                    .Name("orrery_slo_attainment_ratio")
                    .Help("Share of ended requests with latency objectives that met them")
                    .Register(*registry)),
        labels_(std::move(labels)) {}

  void OnEnd(const std::string& slo_class, bool met) {
    Count& count = CountOf(slo_class.empty() ? kDefault : slo_class);
    ++count.ended;
    count.met += met;
    count.ratio->Set(static_cast<double>(count.met) / static_cast<double>(count.ended));
  }

 private:
  struct Count {
    int64_t ended = 0, met = 0;
    prometheus::Gauge* ratio = nullptr;
  };

  Count& CountOf(const std::string& name) {
    const auto found = classes_.find(name);
    if (found != classes_.end()) return found->second;
    const std::string& known = name == kDefault || classes_.size() < kMostClasses ? name : kOther;
    Count& count = classes_[known];
    if (count.ratio == nullptr) {
      auto labels = labels_;
      labels.emplace("class", known);
      count.ratio = &family_.Add(labels);
    }
    return count;
  }

  inline static const std::string kDefault = "default", kOther = "other";
  prometheus::Family<prometheus::Gauge>& family_;
  const std::map<std::string, std::string> labels_;
  std::map<std::string, Count> classes_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_METRICS_SLO_ATTAINMENT_H_
