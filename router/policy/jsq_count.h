// Join the shortest queue by count: each request, in arrival order, goes to the worker with the fewest
// samples that were sent to it and are not over, its own placements of this call included. What most gateways
// call least connections; blind to the sizes of requests. O(workers) for a request.
#ifndef ORRERY_ROUTER_POLICY_JSQ_COUNT_H_
#define ORRERY_ROUTER_POLICY_JSQ_COUNT_H_

#include "router/policy/candidates.h"
#include "router/policy/route_policy.h"

namespace orrery {

class JsqCountPolicy final : public RoutePolicy {
 public:
  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
              Assignment* assignment) override;

 private:
  Candidates candidates_;
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_JSQ_COUNT_H_
