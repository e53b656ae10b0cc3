#include "server/metrics/worker_metrics.h"

#include <cmath>
#include <utility>

namespace orrery {
namespace {

constexpr char kPriceHelp[] =
    "Output tokens that one unit more would bring under the traffic of late (dual of the last plan)";

MetricLabels With(const MetricLabels& labels, MetricLabels more) {
  more.insert(labels.begin(), labels.end());
  return more;
}

MetricLabels OfPolicy(const WorkerMetrics::Identity& identity) {
  return With(identity.labels, {{"kind", "batch"}, {"policy", identity.scheduler}});
}

}  // namespace

WorkerMetrics::WorkerMetrics(const MetricMaker& maker, const Identity& identity)
    : objective_(maker, OfPolicy(identity)) {
  RegisterPool(maker, identity);
  RegisterSteps(maker, identity);
  if (!identity.vllm_labels.empty()) RegisterVllmNames(maker, identity);
}

void WorkerMetrics::RegisterPool(const MetricMaker& maker, const Identity& identity) {
  const MetricLabels& worker = identity.labels;
  waiting_ = maker.Gauge("orrery_requests_waiting", "Sequences without an engine slot", worker);
  running_ = maker.Gauge("orrery_requests_running", "Sequences with an engine slot", worker);
  kv_used_ =
      maker.Gauge("orrery_kv_cache_used_ratio", "KV blocks that running sequences hold, of all", worker);
  const auto blocks = [&](const char* state) {
    return maker.Gauge("orrery_kv_cache_blocks", "KV blocks by state", With(worker, {{"state", state}}));
  };
  blocks_free_ = blocks("free");
  blocks_used_ = blocks("used");
  blocks_cached_ = blocks("cached");
  prefix_hit_tokens_.counter = maker.Counter(
      "orrery_prefix_cache_hit_tokens_total",
      "Tokens not computed thanks to the prefix cache, re-admissions after a preemption included", worker);
  preemptions_.counter =
      maker.Counter("orrery_preemptions_total", "Sequences that lost their KV and start anew", worker);
  const auto price = [&](const char* resource) {
    return maker.Gauge("orrery_shadow_price", kPriceHelp, With(worker, {{"resource", resource}}));
  };
  block_price_ = price("kv_block_seconds");
  prefill_price_ = price("prefill_tokens");
  slot_price_ = price("slots");
  maker
      .Gauge("orrery_cache_config_info", "1; size of the KV pool",
             With(worker, {{"block_tokens", std::to_string(identity.block_tokens)},
                           {"num_blocks", std::to_string(identity.num_blocks)}}))
      ->Set(1);
}

void WorkerMetrics::RegisterSteps(const MetricMaker& maker, const Identity& identity) {
  const MetricLabels& worker = identity.labels;
  const auto step = [&](const char* phase) {
    return maker.Histogram("orrery_step_seconds", "Engine time of a step, by what it held",
                           With(worker, {{"phase", phase}}), Decades(1e-4, 1e2));
  };
  step_prefill_ = step("prefill");
  step_decode_ = step("decode");
  step_mixed_ = step("mixed");
  step_tokens_ = maker.Histogram("orrery_step_tokens", "Tokens computed in a step", worker, PowersOfTwo(16));
  step_sequences_ = maker.Histogram("orrery_step_sequences", "Sequences of a step", worker, PowersOfTwo(9));
  host_step_ = maker.Histogram("orrery_host_step_seconds", "Time of a step outside the engine", worker,
                               Decades(1e-6, 1));
  prediction_error_ = maker.Histogram("orrery_step_prediction_error_ratio",
                                      "|predicted - measured| / measured engine time of a step", worker,
                                      {0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10});
  decision_ =
      maker.Histogram("orrery_policy_decision_seconds", kDecisionHelp, OfPolicy(identity), Decades(1e-6, 1));
  fallbacks_.counter = maker.Counter("orrery_policy_fallbacks_total", "Decisions taken by the fallback rule",
                                     With(OfPolicy(identity), {{"reason", "idle"}}));
}

void WorkerMetrics::RegisterVllmNames(const MetricMaker& maker, const Identity& identity) {
  const MetricLabels& labels = identity.vllm_labels;
  vllm_waiting_ = maker.Gauge("vllm:num_requests_waiting", "As orrery_requests_waiting", labels);
  vllm_running_ = maker.Gauge("vllm:num_requests_running", "As orrery_requests_running", labels);
  vllm_kv_used_ = maker.Gauge("vllm:kv_cache_usage_perc", "As orrery_kv_cache_used_ratio", labels);
  maker
      .Gauge("vllm:cache_config_info", "As orrery_cache_config_info",
             With(labels, {{"block_size", std::to_string(identity.block_tokens)},
                           {"num_gpu_blocks", std::to_string(identity.num_blocks)}}))
      ->Set(1);
}

void WorkerMetrics::OnReport(const WorkerReport& report) {
  for (const StepStats& step : report.steps) OnStep(step);
  const std::pair<Total*, int64_t> totals[] = {{&preemptions_, report.preemptions},
                                               {&prefix_hit_tokens_, report.prefix_hit_tokens},
                                               {&fallbacks_, report.policy_fallbacks}};
  for (const auto& [total, value] : totals) {
    if (fresh_) total->base = static_cast<int64_t>(total->counter->Value()) - value;
    total->Show(value);
  }
  fresh_ = false;
  ShowState(report.state);
}

void WorkerMetrics::OnDown() { ShowState({}); }

void WorkerMetrics::ShowState(const WorkerState& state) {
  const int32_t used = state.blocks_total - state.blocks_free - state.blocks_cached;
  const double ratio = state.blocks_total > 0 ? static_cast<double>(used) / state.blocks_total : 0.0;
  const double num_running = state.num_running;
  waiting_->Set(state.num_waiting);
  running_->Set(num_running);
  kv_used_->Set(ratio);
  blocks_free_->Set(state.blocks_free);
  blocks_used_->Set(used);
  blocks_cached_->Set(state.blocks_cached);
  if (vllm_waiting_ == nullptr) return;
  vllm_waiting_->Set(state.num_waiting);
  vllm_running_->Set(num_running);
  vllm_kv_used_->Set(ratio);
}

void WorkerMetrics::OnStep(const StepStats& step) {
  prometheus::Histogram* phase = step.num_decodes == 0          ? step_prefill_
                                 : step.num_prefill_tokens == 0 ? step_decode_
                                                                : step_mixed_;
  phase->Observe(step.engine.seconds());
  step_tokens_->Observe(step.num_prefill_tokens + step.num_decodes);
  step_sequences_->Observe(step.num_sequences);
  host_step_->Observe(step.host.seconds());
  decision_->Observe(step.decision.seconds());
  if (step.predicted.ns > 0 && step.engine.ns > 0) {
    prediction_error_->Observe(std::abs(step.predicted.seconds() / step.engine.seconds() - 1));
  }
  objective_.Show(step.why);
}

void WorkerMetrics::OnPrices(const ResourcePrices& prices) {
  block_price_->Set(prices.kv_block_second);
  prefill_price_->Set(prices.prefill_token);
  slot_price_->Set(prices.slot_second);
}

}  // namespace orrery
