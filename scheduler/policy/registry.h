// Every policy by name: one table per kind. Configuration, help, documentation, `orrery policies --json` and
// the simulator read it; adding a policy is one line here beside its file pair and test.
#ifndef ORRERY_SCHEDULER_POLICY_REGISTRY_H_
#define ORRERY_SCHEDULER_POLICY_REGISTRY_H_

#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/kv/eviction_policy.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/policy_info.h"
#include "scheduler/predict/length_predictor.h"

namespace orrery {

// All policies of the scheduler, by kind, then in table order.
std::vector<PolicyInfo> SchedulerPolicies();

// `spec` is NAME[:key=value,...]. Unknown names suggest the nearest; unknown options and values out of range
// are INVALID_ARGUMENT with the policy, the option and its range.
absl::StatusOr<std::unique_ptr<BatchPolicy>> NewBatchPolicy(std::string_view spec);
absl::StatusOr<std::unique_ptr<EvictionPolicy>> NewEvictionPolicy(std::string_view spec);
absl::StatusOr<std::unique_ptr<LengthPredictor>> NewLengthPredictor(std::string_view spec);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_REGISTRY_H_
