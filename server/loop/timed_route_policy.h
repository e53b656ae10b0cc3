// A route policy whose decisions are timed and told to the metrics: the router is pure and has no clock.
#ifndef ORRERY_SERVER_LOOP_TIMED_ROUTE_POLICY_H_
#define ORRERY_SERVER_LOOP_TIMED_ROUTE_POLICY_H_

#include <memory>
#include <utility>

#include "router/policy/route_policy.h"
#include "server/loop/clock.h"
#include "server/metrics/server_metrics.h"

namespace orrery {

class TimedRoutePolicy final : public RoutePolicy {
 public:
  TimedRoutePolicy(std::unique_ptr<RoutePolicy> policy, const Clock* clock, ServerMetrics* metrics)
      : policy_(std::move(policy)), clock_(clock), metrics_(metrics) {}

  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
              Assignment* assignment) override {
    const Time began = clock_->Now();
    policy_->Assign(cluster, waiting, now, assignment);
    metrics_->OnRouteDecision(clock_->Now() - began, assignment->why);
  }
  void OnPlanReady(const RoutePlan& plan) override { policy_->OnPlanReady(plan); }
  void OnWorkerState(const WorkerLoad& load, int64_t applied_tokens) override {
    policy_->OnWorkerState(load, applied_tokens);
    ShowErrors();
  }
  void OnFirstToken(RequestId request, Time now) override {
    policy_->OnFirstToken(request, now);
    ShowErrors();
  }
  const PredictionErrors* prediction_errors() const override { return policy_->prediction_errors(); }
  void OnFinished(int32_t output_tokens) override { policy_->OnFinished(output_tokens); }
  PrefixTree* prefixes() override { return policy_->prefixes(); }
  Time NextWake() const override { return policy_->NextWake(); }
  RouteNeeds needs() const override { return policy_->needs(); }

 private:
  void ShowErrors() {
    if (const PredictionErrors* errors = policy_->prediction_errors()) metrics_->OnPredictions(*errors);
  }

  const std::unique_ptr<RoutePolicy> policy_;
  const Clock* clock_;
  ServerMetrics* metrics_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_LOOP_TIMED_ROUTE_POLICY_H_
