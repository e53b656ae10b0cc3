#include "router/policy/registry.h"

#include "router/policy/bf_io.h"
#include "router/policy/fcfs_pool.h"
#include "router/policy/gate_and_route.h"
#include "router/policy/jsq_tokens.h"
#include "router/policy/round_robin.h"
#include "scheduler/policy/policy_table.h"

namespace orrery {
namespace {

constexpr PolicyEntry<RoutePolicy> kRoute[] = {
    PolicyLine<RoutePolicy, FcfsPoolPolicy>("fcfs", "arXiv:2601.17855",
                                            "free slots in worker order, from one pool"),
    PolicyLine<RoutePolicy, RoundRobinPolicy>("round-robin", "", "each worker in turn"),
    PolicyLine<RoutePolicy, JsqTokensPolicy>("jsq-tokens", "", "the worker with the fewest tokens to hold"),
    PolicyLine<RoutePolicy, BfIoPolicy, BfIoOptions>(
        "bf-io", "arXiv:2601.17855", "sizes that balance the workers behind a barrier, from one pool"),
    PolicyLine<RoutePolicy, GateAndRoutePolicy, GateAndRouteOptions>(
        "gate-and-route", "arXiv:2602.02987",
        "prefill and decode apart, by a plan of mixed and solo workers"),
};

}  // namespace

std::vector<PolicyInfo> RouterPolicies() {
  std::vector<PolicyInfo> infos;
  DescribePolicies("route", kRoute, &infos);
  return infos;
}

absl::StatusOr<std::unique_ptr<RoutePolicy>> NewRoutePolicy(std::string_view spec) {
  return NewPolicy("route", kRoute, spec);
}

}  // namespace orrery
