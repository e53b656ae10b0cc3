#include "scheduler/worker_factory.h"

#include <utility>

#include "scheduler/cost/step_cost.h"
#include "scheduler/policy/registry.h"

namespace orrery {

absl::StatusOr<std::unique_ptr<WorkerCore>> NewWorkerCore(const WorkerSpec& spec,
                                                          std::shared_ptr<LengthPredictor> given) {
  WorkerParts parts;
  auto policy = NewBatchPolicy(spec.scheduler);
  if (!policy.ok()) return policy.status();
  parts.policy = *std::move(policy);
  auto eviction = NewEvictionPolicy(spec.eviction);
  if (!eviction.ok()) return eviction.status();
  parts.eviction = *std::move(eviction);
  parts.predictor = std::move(given);
  if (parts.predictor == nullptr) {
    auto predictor = NewLengthPredictor(spec.predictor);
    if (!predictor.ok()) return predictor.status();
    parts.predictor = *std::move(predictor);
  }
  if (!spec.cost.empty()) {
    auto cost = ParseStepCost(spec.cost);
    if (!cost.ok()) return cost.status();
    parts.cost = *std::move(cost);
  }
  return WorkerCore::Create(spec.options, std::move(parts));
}

}  // namespace orrery
