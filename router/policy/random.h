// Each request to a worker drawn uniformly from those that accept and could hold it: the baseline without
// knowledge or memory. O(workers) for a request.
#ifndef ORRERY_ROUTER_POLICY_RANDOM_H_
#define ORRERY_ROUTER_POLICY_RANDOM_H_

#include "router/policy/candidates.h"
#include "router/policy/route_policy.h"
#include "scheduler/base/options.h"
#include "scheduler/base/random.h"

namespace orrery {

// Aligned since g++ 12 warns of a real option in a struct too small for one.
struct alignas(double) RandomRouteOptions {
  int32_t seed = 1;
};

class RandomRoutePolicy final : public RoutePolicy {
 public:
  static absl::Span<const OptionField<RandomRouteOptions>> Fields();
  explicit RandomRoutePolicy(const RandomRouteOptions& options)
      : random_(static_cast<uint64_t>(options.seed)) {}

  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
              Assignment* assignment) override;

 private:
  RandomStream random_;
  Candidates candidates_;
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_RANDOM_H_
