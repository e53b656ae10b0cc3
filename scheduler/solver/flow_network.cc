#include "scheduler/solver/flow_network.h"

#include <algorithm>

#include "scheduler/base/text.h"

namespace orrery::internal {
namespace {
constexpr int64_t kMostSum = int64_t{1} << 62;
constexpr size_t kMostArcs = size_t{1} << 29;
}  // namespace

absl::Status CheckNetwork(const FlowNetwork& network) {
  if (network.nodes < 0) return absl::InvalidArgumentError("network: negative number of nodes");
  if (network.arcs.size() > kMostArcs)
    return absl::ResourceExhaustedError(Cat("network: ", network.arcs.size(), " arcs, at most ", kMostArcs));
  __int128 units = 0, cost = 0, steepest = 0;
  for (size_t a = 0; a < network.arcs.size(); ++a) {
    const Arc& arc = network.arcs[a];
    for (const NodeId node : {arc.from, arc.to}) {
      if (static_cast<int32_t>(node) < 0 || static_cast<int32_t>(node) >= network.nodes)
        return absl::InvalidArgumentError(
            Cat("arc ", a, ": node ", static_cast<int32_t>(node), " is not in [0, ", network.nodes, ")"));
    }
    if (arc.capacity < 0)
      return absl::InvalidArgumentError(Cat("arc ", a, ": capacity ", arc.capacity, " is negative"));
    const __int128 price = arc.cost < 0 ? -static_cast<__int128>(arc.cost) : arc.cost;
    units += arc.capacity;
    cost += price * arc.capacity;
    steepest = std::max(steepest, price);
  }
  // The longest path and its potential: one steepest arc for each node, twice.
  if (units >= kMostSum || cost >= kMostSum || 4 * steepest * (network.nodes + 1) >= kMostSum)
    return absl::ResourceExhaustedError("network: capacities or costs add up to more than 62 bits");
  return absl::OkStatus();
}

ResidualNetwork::ResidualNetwork(const FlowNetwork& network)
    : first_(static_cast<size_t>(network.nodes) + 1, 0) {
  const size_t count = network.arcs.size();
  for (const Arc& arc : network.arcs) {
    ++first_[static_cast<size_t>(arc.from) + 1];
    ++first_[static_cast<size_t>(arc.to) + 1];
    head_.push_back(static_cast<int32_t>(arc.to));
    head_.push_back(static_cast<int32_t>(arc.from));
    left_.push_back(arc.capacity);
    left_.push_back(0);
  }
  for (size_t n = 1; n < first_.size(); ++n) first_[n] += first_[n - 1];
  edges_.resize(2 * count);
  std::vector<int32_t> next(first_.begin(), first_.end() - 1);
  for (size_t edge = 0; edge < 2 * count; ++edge) {
    const auto from = static_cast<size_t>(head_[edge ^ 1]);
    edges_[static_cast<size_t>(next[from]++)] = static_cast<int32_t>(edge);
  }
}

std::vector<int64_t> ResidualNetwork::Flow() const {
  std::vector<int64_t> flow;
  flow.reserve(left_.size() / 2);
  for (size_t edge = 1; edge < left_.size(); edge += 2) flow.push_back(left_[edge]);
  return flow;
}

}  // namespace orrery::internal
