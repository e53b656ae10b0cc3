#include "server/metrics/server_metrics.h"

#include <string>
#include <utility>

namespace orrery {
namespace {

// Always present, so that a rate is defined before the first refusal.
constexpr const char* kReasons[] = {"queue_full", "predicted_wait", "shed",     "kv_too_small",
                                    "draining",   "no_worker",      "not_ready"};

}  // namespace

ServerMetrics::ServerMetrics(const MetricsIdentity& identity)
    : identity_(identity),
      edge_labels_{{"model", identity.model}, {"role", identity.role}},
      route_objective_(maker_, OfRouter()),
      slo_attainment_(registry_.get(), edge_labels_) {
  RegisterRequests();
  RegisterGroups();
  route_decision_ =
      maker_.Histogram("orrery_policy_decision_seconds", kDecisionHelp, OfRouter(), Decades(1e-6, 1));
  maker_
      .Gauge("orrery_build_info", "1; what this is",
             {{"version", identity.version}, {"backend", identity.backend}, {"cuda", identity.cuda}})
      ->Set(1);
}

MetricLabels ServerMetrics::OfRouter() const {
  MetricLabels labels = edge_labels_;
  labels.insert({{"kind", "route"}, {"policy", identity_.router}});
  return labels;
}

void ServerMetrics::RegisterRequests() {
  const MetricLabels& edge = edge_labels_;
  const auto with = [&](const char* label, const char* value) {
    MetricLabels labels = edge;
    labels.emplace(label, value);
    return labels;
  };
  for (int i = 0; i < kNumOutcomes; ++i) {
    requests_[static_cast<size_t>(i)] = maker_.Counter("orrery_requests_total", "Requests that ended, by how",
                                                       with("outcome", NameOf(static_cast<Outcome>(i))));
  }
  rejections_ = &prometheus::BuildCounter()
                     .Name("orrery_rejections_total")
                     .Help("Requests refused for load or state, by reason")
                     .Register(*registry_);
  for (const char* reason : kReasons) rejections_->Add(with("reason", reason));
  for (size_t i = 0; i < kNumReplayReasons; ++i) {
    const std::string reason(ReplayReasonName(static_cast<ReplayReason>(i)));
    retries_[i] =
        maker_.Counter("orrery_retries_total", "Sequences that began again on another worker, by reason",
                       with("reason", reason.c_str()));
  }
  ejections_ = maker_.Counter("orrery_worker_ejections_total",
                              "Times that a worker got nothing new since it lay behind its peers", edge);
  prompt_tokens_ = maker_.Counter("orrery_prompt_tokens_total", "Prompt tokens of admitted requests", edge);
  generated_tokens_ = maker_.Counter("orrery_generated_tokens_total", "Output tokens", edge);
  queue_tokens_ = maker_.Gauge("orrery_queue_tokens", "Prompt tokens that wait", edge);
  const MetricBuckets seconds = Decades(1e-4, 1e3);
  ttft_ = maker_.Histogram("orrery_time_to_first_token_seconds", "Arrival to first token", edge, seconds);
  tpot_ = maker_.Histogram("orrery_time_per_output_token_seconds",
                           "First to last token, per token after the first", edge, seconds);
  itl_ = maker_.Histogram("orrery_inter_token_latency_seconds", "Between tokens of a choice", edge, seconds);
  latency_ = maker_.Histogram("orrery_request_latency_seconds", "Arrival to last token", edge, seconds);
  queue_time_ = maker_.Histogram("orrery_queue_time_seconds", "Arrival to first step", edge, seconds);
  prefill_time_ = maker_.Histogram("orrery_prefill_time_seconds", "First step to first token", edge, seconds);
  decode_time_ = maker_.Histogram("orrery_decode_time_seconds", "First token to last token", edge, seconds);
}

void ServerMetrics::RegisterGroups() {
  for (int32_t i = 0; i < identity_.num_groups; ++i) {
    MetricLabels labels = edge_labels_;
    labels.emplace("group", std::to_string(i));
    groups_.push_back(
        {maker_.Counter("orrery_dp_barrier_idle_seconds_total",
                        "Time that ranks of a group waited for the longest step of the others", labels),
         maker_.Counter("orrery_dp_step_seconds_total",
                        "Time of the group's steps: the longest rank's; idle over (ranks x this) is the "
                        "share that was lost",
                        labels),
         maker_.Gauge("orrery_dp_imbalance_tokens",
                      "Ranks times the largest KV load of a rank, less the load of all", labels)});
  }
}

void ServerMetrics::OnGroupStep(GroupId group, const GroupStep& step) {
  const Group& metrics = groups_[Value(group)];
  metrics.idle->Increment(step.idle.seconds());
  metrics.stepping->Increment(step.longest.seconds());
  metrics.imbalance->Set(static_cast<double>(step.imbalance_tokens));
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
  MetricLabels labels = edge_labels_;
  labels.emplace("reason", reason.empty() ? "other" : reason);  // a worker's word may carry none
  rejections_->Add(labels).Increment();                         // the one that exists, where there is one
}

void ServerMetrics::OnWorkerUp(const WorkerInfo& worker) {
  const size_t place = Value(worker.worker);
  if (place >= workers_.size()) workers_.resize(place + 1);
  if (workers_[place] != nullptr) return workers_[place]->OnUp();
  const std::string number = std::to_string(place);
  WorkerMetrics::Identity identity;
  identity.labels = edge_labels_;
  identity.labels.emplace("worker", number);
  identity.scheduler = identity_.scheduler;
  identity.block_tokens = worker.block_tokens;
  identity.num_blocks = static_cast<int32_t>(worker.kv_capacity_tokens / worker.block_tokens);
  if (identity_.vllm_names) identity.vllm_labels = {{"model_name", identity_.model}, {"engine", number}};
  workers_[place] = std::make_unique<WorkerMetrics>(maker_, identity);
}

void ServerMetrics::OnWorkerDown(WorkerId worker) { workers_[Value(worker)]->OnDown(); }

void ServerMetrics::OnReport(const WorkerReport& report) {
  workers_[Value(report.state.worker)]->OnReport(report);
}

void ServerMetrics::OnReplays(const RouterCounters& counters) {
  if (counters.ejections != std::exchange(ejections_shown_, counters.ejections)) {
    CatchUp(ejections_, static_cast<int64_t>(counters.ejections));
  }
  if (counters.replayed == std::exchange(replays_shown_, counters.replayed)) return;
  for (size_t i = 0; i < kNumReplayReasons; ++i) {
    CatchUp(retries_[i], static_cast<int64_t>(counters.replayed_for[i]));
  }
}

void ServerMetrics::OnRouteDecision(Duration took, const DecisionRecord& why) {
  route_decision_->Observe(took.seconds());
  route_objective_.Show(why);
}

void ServerMetrics::OnPredictions(const PredictionErrors& errors) {
  if (predicted_ttft_error_ == nullptr) {
    predicted_ttft_error_ =
        maker_.Gauge("orrery_predicted_ttft_error_seconds",
              "Mean absolute error of the last times to first token that the router predicted", edge_labels_);
    predicted_step_error_ = maker_.Gauge(
        "orrery_predicted_step_error_seconds",
        "Mean absolute error of the last times of workers' steps that the router predicted", edge_labels_);
  }
  predicted_ttft_error_->Set(errors.ttft.mean_absolute() * 1e-3);
  predicted_step_error_->Set(errors.step.mean_absolute() * 1e-3);
}

void ServerMetrics::OnPrices(const ResourcePrices& prices) {
  for (const auto& worker : workers_) {
    if (worker != nullptr) worker->OnPrices(prices);
  }
}

void ServerMetrics::SetQueueTokens(int64_t tokens) { queue_tokens_->Set(static_cast<double>(tokens)); }

}  // namespace orrery
