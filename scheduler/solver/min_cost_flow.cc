#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <queue>
#include <utility>

#include "scheduler/base/text.h"
#include "scheduler/solver/flow.h"
#include "scheduler/solver/flow_network.h"

namespace orrery {
namespace {

constexpr int64_t kFar = std::numeric_limits<int64_t>::max();
constexpr int32_t kNone = -1;

class SuccessiveShortestPaths {
 public:
  SuccessiveShortestPaths(const FlowNetwork& network, std::vector<int64_t> supply)
      : network_(network),
        residual_(network),
        excess_(std::move(supply)),
        price_(static_cast<size_t>(network.nodes), 0) {}

  MinCostFlowResult Run() {
    SaturateNegative();
    MinCostFlowResult result;
    for (int32_t sink = Search(); sink != kNone; sink = Search()) Augment(sink);
    for (const int64_t e : excess_) result.unmet += std::max<int64_t>(e, 0);
    if (result.unmet > 0) return result;
    result.feasible = true;
    result.flow = residual_.Flow();
    for (size_t a = 0; a < network_.arcs.size(); ++a) result.cost += network_.arcs[a].cost * result.flow[a];
    result.price = price_;
    return result;
  }

 private:
  int64_t& excess(int32_t node) { return excess_[static_cast<size_t>(node)]; }
  int64_t& distance(int32_t node) { return distance_[static_cast<size_t>(node)]; }
  int64_t& price(int32_t node) { return price_[static_cast<size_t>(node)]; }

  int64_t Cost(int32_t edge) const {
    const int64_t cost = network_.arcs[static_cast<size_t>(edge / 2)].cost;
    return edge % 2 == 0 ? cost : -cost;
  }

  // With the negative arcs full, every edge that is left costs at least 0: the potentials may start at 0.
  void SaturateNegative() {
    for (size_t a = 0; a < network_.arcs.size(); ++a) {
      const Arc& arc = network_.arcs[a];
      if (arc.cost >= 0) continue;
      residual_.Push(static_cast<int32_t>(2 * a), arc.capacity);
      excess(static_cast<int32_t>(arc.from)) -= arc.capacity;
      excess(static_cast<int32_t>(arc.to)) += arc.capacity;
    }
  }

  // Dijkstra from all nodes with excess at once to the nearest node with a deficit, in reduced costs; moves
  // the prices so that the path found is free. kNone when no excess reaches a deficit.
  int32_t Search() {
    using Entry = std::pair<int64_t, int32_t>;
    std::priority_queue<Entry, std::vector<Entry>, std::greater<>> heap;
    distance_.assign(excess_.size(), kFar);
    into_.assign(excess_.size(), kNone);
    for (int32_t n = 0; n < residual_.nodes(); ++n) {
      if (excess(n) <= 0) continue;
      distance(n) = 0;
      heap.push({0, n});
    }
    int32_t sink = kNone;
    while (!heap.empty() && sink == kNone) {
      const auto [far, node] = heap.top();
      heap.pop();
      if (far != distance(node)) continue;
      if (excess(node) < 0) sink = node;
      for (const int32_t edge : residual_.EdgesOf(node)) {
        if (residual_.left(edge) == 0) continue;
        const int32_t to = residual_.head(edge);
        const int64_t there = far + Cost(edge) + price(node) - price(to);
        if (there >= distance(to)) continue;
        distance(to) = there;
        into_[static_cast<size_t>(to)] = edge;
        heap.push({there, to});
      }
    }
    if (sink == kNone) return kNone;
    const int64_t reach = distance(sink);
    for (size_t n = 0; n < price_.size(); ++n) price_[n] += std::min(distance_[n], reach);
    return sink;
  }

  void Augment(int32_t sink) {
    int64_t units = -excess(sink);
    int32_t node = sink;
    for (int32_t edge; (edge = into_[static_cast<size_t>(node)]) != kNone; node = residual_.tail(edge))
      units = std::min(units, residual_.left(edge));
    units = std::min(units, excess(node));
    excess(node) -= units;
    excess(sink) += units;
    node = sink;
    for (int32_t edge; (edge = into_[static_cast<size_t>(node)]) != kNone; node = residual_.tail(edge))
      residual_.Push(edge, units);
  }

  const FlowNetwork& network_;
  internal::ResidualNetwork residual_;
  std::vector<int64_t> excess_, price_, distance_;
  std::vector<int32_t> into_;  // by node: the edge of the shortest path that enters it
};

}  // namespace

absl::StatusOr<MinCostFlowResult> MinCostFlow(const FlowNetwork& network,
                                              const std::vector<int64_t>& supply) {
  if (absl::Status status = internal::CheckNetwork(network); !status.ok()) return status;
  if (supply.size() != static_cast<size_t>(network.nodes))
    return absl::InvalidArgumentError(
        Cat("supply: ", supply.size(), " values for ", network.nodes, " nodes"));
  __int128 sum = 0, units = 0;
  for (const int64_t s : supply) {
    sum += s;
    units += s < 0 ? -static_cast<__int128>(s) : s;
  }
  if (sum != 0) return absl::InvalidArgumentError("supply: must add up to 0");
  if (units >= (int64_t{1} << 62))
    return absl::ResourceExhaustedError("supply: adds up to more than 62 bits");
  return SuccessiveShortestPaths(network, supply).Run();
}

}  // namespace orrery
