// Each request to the next worker in turn, whatever they hold; workers that do not accept or are too small
// are passed over. Equal counts, unequal loads: the baseline without any knowledge. O(waiting).
#ifndef ORRERY_ROUTER_POLICY_ROUND_ROBIN_H_
#define ORRERY_ROUTER_POLICY_ROUND_ROBIN_H_

#include "router/policy/route_policy.h"

namespace orrery {

class RoundRobinPolicy final : public RoutePolicy {
 public:
  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
              Assignment* assignment) override;

 private:
  // The turn goes on after this worker, also when workers came or went in between.
  WorkerId last_{};
  bool started_ = false;
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_ROUND_ROBIN_H_
