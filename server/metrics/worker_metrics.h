// The metrics that exist for each worker (label `worker`), fed with its reports.
#ifndef ORRERY_SERVER_METRICS_WORKER_METRICS_H_
#define ORRERY_SERVER_METRICS_WORKER_METRICS_H_

#include <cstdint>
#include <string>

#include "scheduler/planning/resource_prices.h"
#include "server/link/worker_link.h"
#include "server/metrics/metric_maker.h"

namespace orrery {

class WorkerMetrics {
 public:
  struct Identity {
    MetricLabels labels;       // with `worker`
    std::string scheduler;     // the batch policy's name
    int32_t block_tokens = 0;  // of the KV pool
    int32_t num_blocks = 0;
    MetricLabels vllm_labels;  // empty: without vLLM's names
  };
  WorkerMetrics(const MetricMaker& maker, const Identity& identity);

  // A new incarnation, whose totals begin anew.
  void OnUp() { fresh_ = true; }
  // It has nothing any more.
  void OnDown();
  void OnReport(const WorkerReport& report);
  // The last plan of the worker's resources.
  void OnPrices(const ResourcePrices& prices);

 private:
  // A total that a worker keeps, on top of what its earlier incarnations counted.
  struct Total {
    prometheus::Counter* counter = nullptr;
    int64_t base = 0;
    void Show(int64_t total) const { CatchUp(counter, base + total); }
  };
  void ShowState(const WorkerState& state);
  void RegisterPool(const MetricMaker& maker, const Identity& identity);
  void RegisterSteps(const MetricMaker& maker, const Identity& identity);
  void RegisterVllmNames(const MetricMaker& maker, const Identity& identity);
  void OnStep(const StepStats& step);

  Total prefix_hit_tokens_, preemptions_, fallbacks_;
  bool fresh_ = false;
  prometheus::Gauge *waiting_, *running_, *kv_used_;
  prometheus::Gauge *blocks_free_, *blocks_used_, *blocks_cached_;
  prometheus::Gauge *block_price_, *prefill_price_, *slot_price_;
  prometheus::Gauge *vllm_waiting_ = nullptr, *vllm_running_ = nullptr, *vllm_kv_used_ = nullptr;
  prometheus::Histogram *step_prefill_, *step_decode_, *step_mixed_;
  prometheus::Histogram *step_tokens_, *step_sequences_, *host_step_, *decision_, *prediction_error_;
  PolicyObjective objective_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_METRICS_WORKER_METRICS_H_
