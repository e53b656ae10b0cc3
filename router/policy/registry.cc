#include "router/policy/registry.h"

#include "router/policy/bf_io.h"
#include "router/policy/cache_aware.h"
#include "router/policy/consistent_hash.h"
#include "router/policy/dual_map.h"
#include "router/policy/fcfs_pool.h"
#include "router/policy/gate_and_route.h"
#include "router/policy/jsq_count.h"
#include "router/policy/jsq_tokens.h"
#include "router/policy/power_of_two.h"
#include "router/policy/random.h"
#include "router/policy/round_robin.h"
#include "router/policy/slo.h"
#include "router/policy/staggered.h"
#include "scheduler/policy/policy_table.h"

namespace orrery {
namespace {

constexpr PolicyEntry<RoutePolicy> kRoute[] = {
    PolicyLine<RoutePolicy, FcfsPoolPolicy>("fcfs", "arXiv:2601.17855",
                                            "free slots in worker order, from one pool"),
    PolicyLine<RoutePolicy, RoundRobinPolicy>("round-robin", "", "each worker in turn"),
    PolicyLine<RoutePolicy, RandomRoutePolicy, RandomRouteOptions>("random", "", "any worker"),
    PolicyLine<RoutePolicy, PowerOfTwoPolicy, PowerOfTwoOptions>(
        "power-of-two", "", "of two workers drawn, the one with fewer tokens to hold"),
    PolicyLine<RoutePolicy, JsqCountPolicy>("jsq-count", "", "the worker with the fewest samples in flight"),
    PolicyLine<RoutePolicy, JsqTokensPolicy>("jsq-tokens", "", "the worker with the fewest tokens to hold"),
    PolicyLine<RoutePolicy, BfIoPolicy, BfIoOptions>(
        "bf-io", "arXiv:2601.17855", "sizes that balance the workers behind a barrier, from one pool"),
    PolicyLine<RoutePolicy, ConsistentHashPolicy, ConsistentHashOptions>(
        "consistent-hash", "arXiv:1608.01350", "equal routing keys to one worker, while its load is bounded"),
    PolicyLine<RoutePolicy, CacheAwarePolicy, CacheAwareOptions>(
        "cache-aware", "", "the worker that was sent the longest prefix, while all are balanced"),
    PolicyLine<RoutePolicy, DualMapPolicy, DualMapOptions>(
        "dual-map", "arXiv:2602.06502", "one of the two workers that a prefix belongs to, by their state"),
    PolicyLine<RoutePolicy, StaggeredPolicy, StaggeredOptions>(
        "staggered", "arXiv:2512.16134", "prompts kept until a pass ends, then filled into its chunks"),
    PolicyLine<RoutePolicy, SloPolicy, SloOptions>(
        "slo", "", "the cheapest worker that is predicted to meet the request's targets"),
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
