// Join the shortest queue by tokens: each request, in arrival order, goes to the worker with the fewest
// tokens resident, queued or on their way, its own placements of this call included. Requests larger than a
// worker's KV or context pass it by. Near-optimal below saturation. O(waiting * workers).
#ifndef ORRERY_ROUTER_POLICY_JSQ_TOKENS_H_
#define ORRERY_ROUTER_POLICY_JSQ_TOKENS_H_

#include <cstdint>
#include <vector>

#include "router/policy/route_policy.h"

namespace orrery {

class JsqTokensPolicy final : public RoutePolicy {
 public:
  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
              Assignment* assignment) override;

 private:
  std::vector<int64_t> added_;  // [workers] tokens placed in this call
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_JSQ_TOKENS_H_
