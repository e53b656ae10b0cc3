// Every route policy by name: the router's part of the policy table (scheduler/policy/registry.h).
#ifndef ORRERY_ROUTER_POLICY_REGISTRY_H_
#define ORRERY_ROUTER_POLICY_REGISTRY_H_

#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "router/policy/route_policy.h"
#include "scheduler/policy/policy_info.h"

namespace orrery {

std::vector<PolicyInfo> RouterPolicies();
// `spec` is NAME[:key=value,...]; errors as for the scheduler's policies.
absl::StatusOr<std::unique_ptr<RoutePolicy>> NewRoutePolicy(std::string_view spec);

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_REGISTRY_H_
