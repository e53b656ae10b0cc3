#include "engine/modeled_executor.h"

#include <algorithm>
#include <thread>
#include <utility>

namespace orrery {

ModeledExecutor::ModeledExecutor(const EngineLimits& limits, int max_in_flight, StepCostFunction cost)
    : tokens_({.limits = limits, .max_in_flight = max_in_flight}), cost_(std::move(cost)) {}

absl::Status ModeledExecutor::Launch(const StepPlan& plan) {
  if (absl::Status status = tokens_.Launch(plan); !status.ok()) return status;
  const auto takes = std::chrono::nanoseconds(plan.has_work() ? std::max<int64_t>(cost_(plan).ns, 0) : 0);
  busy_until_ = std::max(busy_until_, Clock::now()) + takes;
  ends_.push_back(busy_until_);
  return absl::OkStatus();
}

absl::Status ModeledExecutor::Wait(StepId step, StepResult* result) {
  absl::Status status = tokens_.Wait(step, result);
  if (ends_.empty()) return status;
  const Clock::time_point end = ends_.front();
  ends_.pop_front();
  std::this_thread::sleep_until(end);
  return status;
}

}  // namespace orrery
