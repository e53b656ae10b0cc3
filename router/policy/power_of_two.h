// The power of two choices (Mitzenmacher, 1996): of two workers drawn without replacement from those that
// accept and could hold the request, the one with fewer tokens resident, queued or on their way. Nearly as
// level as the shortest queue of all, and many routers with the same stale loads do not all pick the same
// worker. O(workers) for a request.
#ifndef ORRERY_ROUTER_POLICY_POWER_OF_TWO_H_
#define ORRERY_ROUTER_POLICY_POWER_OF_TWO_H_

#include "router/policy/candidates.h"
#include "router/policy/route_policy.h"
#include "scheduler/base/options.h"
#include "scheduler/base/random.h"

namespace orrery {

// Aligned since g++ 12 warns of a real option in a struct too small for one.
struct alignas(double) PowerOfTwoOptions {
  int32_t seed = 1;
};

class PowerOfTwoPolicy final : public RoutePolicy {
 public:
  static absl::Span<const OptionField<PowerOfTwoOptions>> Fields();
  explicit PowerOfTwoPolicy(const PowerOfTwoOptions& options)
      : random_(static_cast<uint64_t>(options.seed)) {}

  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
              Assignment* assignment) override;

 private:
  RandomStream random_;
  Candidates candidates_;
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_POWER_OF_TWO_H_
