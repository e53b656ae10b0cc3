// The metrics of interfaces.md that a server has by now, as handles looked up once. All observing but that
// of refusals is done by the front loop's thread (in a worker process: by the workers' threads); scraping
// reads beside it.
#ifndef ORRERY_SERVER_METRICS_SERVER_METRICS_H_
#define ORRERY_SERVER_METRICS_SERVER_METRICS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/registry.h"
#include "router/predict/prediction_error.h"
#include "router/router_core.h"
#include "scheduler/planning/resource_prices.h"
#include "server/delivery/generation.h"
#include "server/link/worker_link.h"
#include "server/metrics/metric_maker.h"
#include "server/metrics/slo_attainment.h"
#include "server/metrics/worker_metrics.h"

namespace orrery {

// What stands in the labels and in the info metrics.
struct MetricsIdentity {
  std::string model;
  std::string role = "all";
  std::string version;
  std::string backend;
  std::string cuda = "none";
  int32_t num_groups = 0;  // of workers of this process that step together
  std::string scheduler;   // the batch policy's name
  std::string router;      // the route policy's name
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
  // How good the route policy's predictions were lately, if it makes any.
  void OnPredictions(const PredictionErrors& errors);
  // A request that never ran: outcome rejected (with its reason) or invalid. From any thread.
  void OnRefused(Outcome outcome, absl::string_view reason);
  // Before a worker's first report; again for a new incarnation.
  void OnWorkerUp(const WorkerInfo& worker);
  void OnWorkerDown(WorkerId worker);
  // From one thread for each group.
  void OnGroupStep(GroupId group, const GroupStep& step);
  // What the router has counted up to now.
  void OnReplays(const RouterCounters& counters);
  // REQUIRES: the worker is up. From one thread for each worker.
  void OnReport(const WorkerReport& report);
  void SetQueueTokens(int64_t tokens);
  // The last plan of a worker's resources: they are taken to be alike.
  void OnPrices(const ResourcePrices& prices);

  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }

 private:
  void RegisterRequests();
  void RegisterGroups();
  MetricLabels OfRouter() const;

  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  const MetricMaker maker_{registry_};
  const MetricsIdentity identity_;
  const MetricLabels edge_labels_;
  prometheus::Family<prometheus::Counter>* rejections_ = nullptr;
  std::array<prometheus::Counter*, kNumOutcomes> requests_{};
  std::array<prometheus::Counter*, kNumReplayReasons> retries_{};
  prometheus::Counter* ejections_;
  uint64_t replays_shown_ = 0, ejections_shown_ = 0;
  prometheus::Counter *prompt_tokens_, *generated_tokens_;
  prometheus::Gauge* queue_tokens_;
  prometheus::Gauge *predicted_ttft_error_ = nullptr, *predicted_step_error_ = nullptr;
  prometheus::Histogram *ttft_, *tpot_, *itl_, *latency_, *queue_time_, *prefill_time_, *decode_time_;
  prometheus::Histogram* route_decision_;
  PolicyObjective route_objective_;
  SloAttainment slo_attainment_;
  struct Group {
    prometheus::Counter *idle, *stepping;
    prometheus::Gauge* imbalance;
  };
  std::vector<Group> groups_;                            // by id
  std::vector<std::unique_ptr<WorkerMetrics>> workers_;  // by id; null: never up
};

}  // namespace orrery

#endif  // ORRERY_SERVER_METRICS_SERVER_METRICS_H_
