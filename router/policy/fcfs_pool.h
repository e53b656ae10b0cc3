// First come, first served from one pool: free slots are filled in worker order with the oldest requests; who
// finds no slot stays pooled at the router. The baseline that routing papers compare with (arXiv:2601.17855).
// A worker takes a request only if its slots and KV have room for it beside what it holds or was sent. The
// oldest request that fits nowhere stops the rest: nobody is overtaken. O(workers + placed).
#ifndef ORRERY_ROUTER_POLICY_FCFS_POOL_H_
#define ORRERY_ROUTER_POLICY_FCFS_POOL_H_

#include <cstdint>
#include <vector>

#include "router/policy/route_policy.h"

namespace orrery {

class FcfsPoolPolicy final : public RoutePolicy {
 public:
  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
              Assignment* assignment) override;

 private:
  struct Room {
    const WorkerLoad* worker = nullptr;
    int32_t slots = 0;
    int64_t kv_tokens = 0;  // free
  };
  std::vector<Room> rooms_;  // workers with a free slot, of this call
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_FCFS_POOL_H_
