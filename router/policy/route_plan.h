// What a solver beside the router has worked out, for the policies that decide by it.
#ifndef ORRERY_ROUTER_POLICY_ROUTE_PLAN_H_
#define ORRERY_ROUTER_POLICY_ROUTE_PLAN_H_

#include "scheduler/base/ids.h"
#include "scheduler/planning/mixed_pools.h"

namespace orrery {

struct RoutePlan {
  PlanId id{};  // ascending: an older plan that comes late is not used
  // Classes in the order of Submit::traffic_class.
  MixedPoolsInput question;
  MixedPoolsPlan answer;
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_ROUTE_PLAN_H_
