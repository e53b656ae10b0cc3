// Flows in networks with integer capacities, exactly: no tolerance, no library.
//
//   MaxFlow       most units from source to sink, and a cut that proves it. Dinic's blocking flows:
//                 O(nodes^2 arcs), far less in practice.
//   MinCostFlow   cheapest flow that meets every node's supply, and prices that prove it. Successive shortest
//                 paths with potentials (Edmonds and Karp 1972): O(units sent * arcs log nodes). Costs may be
//                 negative, cycles of negative cost too.
//
// Deterministic: ties go to the node and arc added first. A network is INVALID_ARGUMENT when an arc names a
// node that does not exist or a capacity is negative, RESOURCE_EXHAUSTED when its sums could overflow 62
// bits.
#ifndef ORRERY_SCHEDULER_SOLVER_FLOW_H_
#define ORRERY_SCHEDULER_SOLVER_FLOW_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace orrery {

// Dense, [0, nodes).
enum class NodeId : int32_t {};

struct Arc {
  NodeId from{}, to{};
  int64_t capacity = 0;
  int64_t cost = 0;  // per unit; ignored by MaxFlow
};

struct FlowNetwork {
  int32_t nodes = 0;
  std::vector<Arc> arcs;
};

struct MaxFlowResult {
  int64_t value = 0;
  std::vector<int64_t> flow;      // by arc
  std::vector<bool> source_side;  // by node: the arcs out of it are a minimum cut
};
absl::StatusOr<MaxFlowResult> MaxFlow(const FlowNetwork& network, NodeId source, NodeId sink);

struct MinCostFlowResult {
  bool feasible = false;
  int64_t cost = 0;
  std::vector<int64_t> flow;  // by arc; only if feasible
  // By node. For every arc: flow < capacity => cost + price[from] - price[to] >= 0, flow > 0 => it is <= 0.
  std::vector<int64_t> price;
  int64_t unmet = 0;  // supply that finds no way; 0 if feasible
};
// `supply` by node, negative for demand; a sum other than 0 is INVALID_ARGUMENT.
absl::StatusOr<MinCostFlowResult> MinCostFlow(const FlowNetwork& network, const std::vector<int64_t>& supply);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_SOLVER_FLOW_H_
