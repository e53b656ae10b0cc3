// The metrics of interfaces.md that a server has by now, as handles looked up once. All observing but that
// of refusals is done by the front loop's thread; scraping reads beside it.
#ifndef ORRERY_SERVER_METRICS_SERVER_METRICS_H_
#define ORRERY_SERVER_METRICS_SERVER_METRICS_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "scheduler/planning/resource_prices.h"
#include "server/delivery/generation.h"
#include "server/link/worker_link.h"
#include "server/metrics/slo_attainment.h"

namespace orrery {

// What stands in the labels and in the info metrics.
struct MetricsIdentity {
  std::string model;
  std::string role = "all";
  std::string version;
  std::string backend;
  std::string cuda = "none";
  int32_t block_tokens = 0;
  int32_t num_blocks = 0;
  std::string scheduler;  // the batch policy's name
  std::string router;     // the route policy's name
  bool vllm_names = false;
};

class ServerMetrics {
 public:
  explicit ServerMetrics(const MetricsIdentity& identity);

  void OnAdmitted(int64_t prompt_tokens);
  void OnTokens(int64_t count);
  void OnGap(Duration gap);  // between two tokens of a choice
  void OnFirstToken(Duration ttft);
  void OnEnd(Outcome outcome, const RequestTimes& times);
  // An admitted request with latency objectives is over; they were met or not. `slo_class` is the client's.
  void OnSloEnd(const std::string& slo_class, bool met) { slo_attainment_.OnEnd(slo_class, met); }
  void OnRouteDecision(Duration took, const DecisionRecord& why);
  // A request that never ran: outcome rejected (with its reason) or invalid. From any thread.
  void OnRefused(Outcome outcome, absl::string_view reason);
  void OnReport(const WorkerReport& report);
  void SetQueueTokens(int64_t tokens);
  // The last plan of the worker's resources.
  void OnPrices(const ResourcePrices& prices);

  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }

 private:
  using Labels = std::map<std::string, std::string>;
  // Of one policy's last decision. The gap exists once the policy has named a bound.
  struct ObjectiveGauges {
    Labels labels;
    prometheus::Gauge *value = nullptr, *bound_gap = nullptr;
  };
  prometheus::Counter* Counter(const char* name, const char* help, const Labels& labels);
  prometheus::Gauge* Gauge(const char* name, const char* help, const Labels& labels);
  prometheus::Histogram* Histogram(const char* name, const char* help, const Labels& labels,
                                   const prometheus::Histogram::BucketBoundaries& buckets);
  void RegisterRequests();
  void RegisterRouter(const MetricsIdentity& identity);
  void RegisterWorker(const MetricsIdentity& identity);
  void RegisterVllmNames(const MetricsIdentity& identity);
  void OnStep(const StepStats& step);
  ObjectiveGauges Objective(const Labels& labels);
  void ShowObjective(const DecisionRecord& why, ObjectiveGauges* gauges);

  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  Labels edge_labels_, worker_labels_;
  prometheus::Family<prometheus::Counter>* rejections_ = nullptr;
  std::array<prometheus::Counter*, kNumOutcomes> requests_{};
  prometheus::Counter *prompt_tokens_, *generated_tokens_, *prefix_hit_tokens_, *preemptions_, *fallbacks_;
  prometheus::Gauge *waiting_, *running_, *kv_used_, *queue_tokens_;
  prometheus::Gauge *blocks_free_, *blocks_used_, *blocks_cached_;
  prometheus::Histogram* route_decision_;
  ObjectiveGauges batch_objective_, route_objective_;
  prometheus::Gauge *block_price_, *prefill_price_, *slot_price_;
  SloAttainment slo_attainment_;
  prometheus::Gauge *vllm_waiting_ = nullptr, *vllm_running_ = nullptr, *vllm_kv_used_ = nullptr;
  prometheus::Histogram *ttft_, *tpot_, *itl_, *latency_, *queue_time_, *prefill_time_, *decode_time_;
  prometheus::Histogram *step_prefill_, *step_decode_, *step_mixed_;
  prometheus::Histogram *step_tokens_, *step_sequences_, *host_step_, *decision_, *prediction_error_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_METRICS_SERVER_METRICS_H_
