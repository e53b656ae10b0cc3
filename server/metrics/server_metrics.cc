#include "server/metrics/server_metrics.h"

#include <algorithm>
#include <cmath>

namespace orrery {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

// Always present, so that a rate is defined before the first refusal.
constexpr const char* kReasons[] = {"queue_full", "predicted_wait", "shed",     "kv_too_small",
                                    "draining",   "no_worker",      "not_ready"};

constexpr char kDecisionHelp[] = "Time of a decision";
constexpr char kBoundGapHelp[] = "|objective - bound| / larger of the two of the last decision; 0: optimal";
constexpr char kPriceHelp[] =
    "Output tokens that one unit more would bring under the traffic of late (dual of the last plan)";

// 1, 2.5, 5 per decade.
Buckets Decades(double from, double to) {
  Buckets buckets;
  for (double decade = from; decade < to * 1.001; decade *= 10) {
    for (const double step : {1.0, 2.5, 5.0}) {
      if (decade * step < to * 1.001) buckets.push_back(decade * step);
    }
  }
  return buckets;
}

Buckets PowersOfTwo(int last) {
  Buckets buckets;
  for (int i = 0; i <= last; ++i) buckets.push_back(std::ldexp(1.0, i));
  return buckets;
}

void CatchUp(prometheus::Counter* counter, int64_t total) {
  const double behind = static_cast<double>(total) - counter->Value();
  if (behind > 0) counter->Increment(behind);
}

}  // namespace

prometheus::Counter* ServerMetrics::Counter(const char* name, const char* help, const Labels& labels) {
  return &prometheus::BuildCounter().Name(name).Help(help).Register(*registry_).Add(labels);
}
prometheus::Gauge* ServerMetrics::Gauge(const char* name, const char* help, const Labels& labels) {
  return &prometheus::BuildGauge().Name(name).Help(help).Register(*registry_).Add(labels);
}
prometheus::Histogram* ServerMetrics::Histogram(const char* name, const char* help, const Labels& labels,
                                                const Buckets& buckets) {
  return &prometheus::BuildHistogram().Name(name).Help(help).Register(*registry_).Add(labels, buckets);
}

ServerMetrics::ObjectiveGauges ServerMetrics::Objective(const Labels& labels) {
  return {labels, Gauge("orrery_policy_objective", "Objective value of the last decision", labels)};
}

void ServerMetrics::ShowObjective(const DecisionRecord& why, ObjectiveGauges* gauges) {
  gauges->value->Set(why.value);
  if (std::isnan(why.bound)) return;
  if (gauges->bound_gap == nullptr) {
    gauges->bound_gap = Gauge("orrery_policy_bound_gap_ratio", kBoundGapHelp, gauges->labels);
  }
  const double scale = std::max(std::abs(why.value), std::abs(why.bound));
  gauges->bound_gap->Set(scale > 0 ? std::abs(why.value - why.bound) / scale : 0);
}

ServerMetrics::ServerMetrics(const MetricsIdentity& identity)
    : edge_labels_{{"model", identity.model}, {"role", identity.role}},
      worker_labels_(edge_labels_),
      slo_attainment_(registry_.get(), edge_labels_) {
  worker_labels_.emplace("worker", "0");
  RegisterRequests();
  RegisterRouter(identity);
  RegisterWorker(identity);
  if (identity.vllm_names) RegisterVllmNames(identity);
}

void ServerMetrics::RegisterRequests() {
  const Labels& edge = edge_labels_;
  const auto with = [&](const char* label, const char* value) {
    Labels labels = edge;
    labels.emplace(label, value);
    return labels;
  };
  for (int i = 0; i < kNumOutcomes; ++i) {
    requests_[static_cast<size_t>(i)] = Counter("orrery_requests_total", "Requests that ended, by how",
                                                with("outcome", NameOf(static_cast<Outcome>(i))));
  }
  rejections_ = &prometheus::BuildCounter()
                     .Name("orrery_rejections_total")
                     .Help("Requests refused for load or state, by reason")
                     .Register(*registry_);
  for (const char* reason : kReasons) rejections_->Add(with("reason", reason));
  prompt_tokens_ = Counter("orrery_prompt_tokens_total", "Prompt tokens of admitted requests", edge);
  generated_tokens_ = Counter("orrery_generated_tokens_total", "Output tokens", edge);
  queue_tokens_ = Gauge("orrery_queue_tokens", "Prompt tokens that wait", edge);
  const Buckets seconds = Decades(1e-4, 1e3);
  ttft_ = Histogram("orrery_time_to_first_token_seconds", "Arrival to first token", edge, seconds);
  tpot_ = Histogram("orrery_time_per_output_token_seconds", "First to last token, per token after the first",
                    edge, seconds);
  itl_ = Histogram("orrery_inter_token_latency_seconds", "Between tokens of a choice", edge, seconds);
  latency_ = Histogram("orrery_request_latency_seconds", "Arrival to last token", edge, seconds);
  queue_time_ = Histogram("orrery_queue_time_seconds", "Arrival to first step", edge, seconds);
  prefill_time_ = Histogram("orrery_prefill_time_seconds", "First step to first token", edge, seconds);
  decode_time_ = Histogram("orrery_decode_time_seconds", "First token to last token", edge, seconds);
}

void ServerMetrics::RegisterRouter(const MetricsIdentity& identity) {
  Labels policy = edge_labels_;
  policy.insert({{"kind", "route"}, {"policy", identity.router}});
  route_decision_ = Histogram("orrery_policy_decision_seconds", kDecisionHelp, policy, Decades(1e-6, 1));
  route_objective_ = Objective(policy);
}

void ServerMetrics::RegisterWorker(const MetricsIdentity& identity) {
  const Labels& worker = worker_labels_;
  const auto with = [&](std::map<std::string, std::string> more) {
    more.insert(worker.begin(), worker.end());
    return more;
  };
  waiting_ = Gauge("orrery_requests_waiting", "Sequences without an engine slot", worker);
  running_ = Gauge("orrery_requests_running", "Sequences with an engine slot", worker);
  kv_used_ = Gauge("orrery_kv_cache_used_ratio", "KV blocks that running sequences hold, of all", worker);
  blocks_free_ = Gauge("orrery_kv_cache_blocks", "KV blocks by state", with({{"state", "free"}}));
  blocks_used_ = Gauge("orrery_kv_cache_blocks", "KV blocks by state", with({{"state", "used"}}));
  blocks_cached_ = Gauge("orrery_kv_cache_blocks", "KV blocks by state", with({{"state", "cached"}}));
  prefix_hit_tokens_ = Counter(
      "orrery_prefix_cache_hit_tokens_total",
      "Tokens not computed thanks to the prefix cache, re-admissions after a preemption included", worker);
  preemptions_ = Counter("orrery_preemptions_total", "Sequences that lost their KV and start anew", worker);
  const Buckets seconds = Decades(1e-4, 1e2);
  const char* step_help = "Engine time of a step, by what it held";
  step_prefill_ = Histogram("orrery_step_seconds", step_help, with({{"phase", "prefill"}}), seconds);
  step_decode_ = Histogram("orrery_step_seconds", step_help, with({{"phase", "decode"}}), seconds);
  step_mixed_ = Histogram("orrery_step_seconds", step_help, with({{"phase", "mixed"}}), seconds);
  step_tokens_ = Histogram("orrery_step_tokens", "Tokens computed in a step", worker, PowersOfTwo(16));
  step_sequences_ = Histogram("orrery_step_sequences", "Sequences of a step", worker, PowersOfTwo(9));
  host_step_ =
      Histogram("orrery_host_step_seconds", "Time of a step outside the engine", worker, Decades(1e-6, 1));
  prediction_error_ = Histogram("orrery_step_prediction_error_ratio",
                                "|predicted - measured| / measured engine time of a step", worker,
                                {0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10});
  const auto policy = with({{"kind", "batch"}, {"policy", identity.scheduler}});
  decision_ = Histogram("orrery_policy_decision_seconds", kDecisionHelp, policy, Decades(1e-6, 1));
  batch_objective_ = Objective(policy);
  const auto price = [&](const char* resource) {
    return Gauge("orrery_shadow_price", kPriceHelp, with({{"resource", resource}}));
  };
  block_price_ = price("kv_block_seconds");
  prefill_price_ = price("prefill_tokens");
  slot_price_ = price("slots");
  fallbacks_ = Counter("orrery_policy_fallbacks_total", "Decisions taken by the fallback rule",
                       with({{"kind", "batch"}, {"policy", identity.scheduler}, {"reason", "idle"}}));
  Gauge("orrery_build_info", "1; what this is",
        {{"version", identity.version}, {"backend", identity.backend}, {"cuda", identity.cuda}})
      ->Set(1);
  Gauge("orrery_cache_config_info", "1; size of the KV pool",
        with({{"block_tokens", std::to_string(identity.block_tokens)},
              {"num_blocks", std::to_string(identity.num_blocks)}}))
      ->Set(1);
}

void ServerMetrics::RegisterVllmNames(const MetricsIdentity& identity) {
  const Labels labels{{"model_name", identity.model}, {"engine", "0"}};
  vllm_waiting_ = Gauge("vllm:num_requests_waiting", "As orrery_requests_waiting", labels);
  vllm_running_ = Gauge("vllm:num_requests_running", "As orrery_requests_running", labels);
  vllm_kv_used_ = Gauge("vllm:kv_cache_usage_perc", "As orrery_kv_cache_used_ratio", labels);
  Labels info = labels;
  info.emplace("block_size", std::to_string(identity.block_tokens));
  info.emplace("num_gpu_blocks", std::to_string(identity.num_blocks));
  Gauge("vllm:cache_config_info", "As orrery_cache_config_info", info)->Set(1);
}

void ServerMetrics::OnAdmitted(int64_t prompt_tokens) {
  prompt_tokens_->Increment(static_cast<double>(prompt_tokens));
}

void ServerMetrics::OnTokens(int64_t count) { generated_tokens_->Increment(static_cast<double>(count)); }

void ServerMetrics::OnGap(Duration gap) { itl_->Observe(gap.seconds()); }

void ServerMetrics::OnFirstToken(Duration ttft) { ttft_->Observe(ttft.seconds()); }

void ServerMetrics::OnEnd(Outcome outcome, const RequestTimes& times) {
  requests_[static_cast<size_t>(outcome)]->Increment();
  if (times.first_token.is_never()) return;
  latency_->Observe((times.last_token - times.arrived).seconds());
  decode_time_->Observe((times.last_token - times.first_token).seconds());
  if (times.longest_choice > 1) {
    tpot_->Observe((times.last_token - times.first_token).seconds() /
                   static_cast<double>(times.longest_choice - 1));
  }
  if (times.first_scheduled.is_never()) return;
  queue_time_->Observe((times.first_scheduled - times.arrived).seconds());
  prefill_time_->Observe((times.first_token - times.first_scheduled).seconds());
}

void ServerMetrics::OnRefused(Outcome outcome, absl::string_view reason) {
  requests_[static_cast<size_t>(outcome)]->Increment();
  if (outcome != Outcome::kRejected) return;
  Labels labels = edge_labels_;
  labels.emplace("reason", reason.empty() ? "other" : reason);  // a worker's word may carry none
  rejections_->Add(labels).Increment();                         // the one that exists, where there is one
}

void ServerMetrics::OnReport(const WorkerReport& report) {
  for (const StepStats& step : report.steps) OnStep(step);
  CatchUp(preemptions_, report.preemptions);
  CatchUp(prefix_hit_tokens_, report.prefix_hit_tokens);
  CatchUp(fallbacks_, report.policy_fallbacks);
  const WorkerState& state = report.state;
  const int32_t used = state.blocks_total - state.blocks_free - state.blocks_cached;
  const double ratio = state.blocks_total > 0 ? static_cast<double>(used) / state.blocks_total : 0.0;
  const double num_running = static_cast<double>(state.running.size());
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

void ServerMetrics::OnStep(const StepStats& step) {
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
  ShowObjective(step.why, &batch_objective_);
}

void ServerMetrics::OnRouteDecision(Duration took, const DecisionRecord& why) {
  route_decision_->Observe(took.seconds());
  ShowObjective(why, &route_objective_);
}

void ServerMetrics::OnPrices(const ResourcePrices& prices) {
  block_price_->Set(prices.kv_block_second);
  prefill_price_->Set(prices.prefill_token);
  slot_price_->Set(prices.slot_second);
}

void ServerMetrics::SetQueueTokens(int64_t tokens) { queue_tokens_->Set(static_cast<double>(tokens)); }

}  // namespace orrery
