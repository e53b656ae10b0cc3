// Consistent hashing with bounded loads (Mirrokni et al., SODA 2018; the bound here as in vLLM's router):
// equal routing keys meet on one worker while its samples in flight are at most `skew` times the mean over
// the workers that accept; a key whose worker has more goes to the next one in its own order that has not,
// and to its own when all have. The order is that of rendezvous hashing (rendezvous.h): a worker that is lost
// or stops accepting moves nobody else's keys. Requests without a key go where the fewest are in flight.
// O(workers) for a request.
#ifndef ORRERY_ROUTER_POLICY_CONSISTENT_HASH_H_
#define ORRERY_ROUTER_POLICY_CONSISTENT_HASH_H_

#include "router/policy/candidates.h"
#include "router/policy/route_policy.h"
#include "scheduler/base/options.h"

namespace orrery {

struct ConsistentHashOptions {
  double skew = 1.5;
};

class ConsistentHashPolicy final : public RoutePolicy {
 public:
  static absl::Span<const OptionField<ConsistentHashOptions>> Fields();
  explicit ConsistentHashPolicy(const ConsistentHashOptions& options) : options_(options) {}

  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
              Assignment* assignment) override;

 private:
  const ConsistentHashOptions options_;
  Candidates candidates_;
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_CONSISTENT_HASH_H_
