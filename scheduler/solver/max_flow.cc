#include <algorithm>
#include <limits>

#include "scheduler/base/text.h"
#include "scheduler/solver/flow.h"
#include "scheduler/solver/flow_network.h"

namespace orrery {
namespace {

constexpr int32_t kUnreached = -1;

class Dinic {
 public:
  Dinic(const FlowNetwork& network, int32_t source, int32_t sink)
      : residual_(network), source_(source), sink_(sink), next_(static_cast<size_t>(network.nodes)) {}

  MaxFlowResult Run() {
    MaxFlowResult result;
    while (Levels()) {
      std::fill(next_.begin(), next_.end(), size_t{0});
      while (const int64_t units = Augment()) result.value += units;
    }
    result.flow = residual_.Flow();
    for (const int32_t level : level_) result.source_side.push_back(level != kUnreached);
    return result;
  }

 private:
  int32_t& level(int32_t node) { return level_[static_cast<size_t>(node)]; }

  // Fewest edges from the source; false when the sink is cut off.
  bool Levels() {
    level_.assign(static_cast<size_t>(residual_.nodes()), kUnreached);
    level(source_) = 0;
    std::vector<int32_t> queue = {source_};
    for (size_t i = 0; i < queue.size(); ++i) {
      const int32_t node = queue[i];
      for (const int32_t edge : residual_.EdgesOf(node)) {
        const int32_t to = residual_.head(edge);
        if (residual_.left(edge) == 0 || level(to) != kUnreached) continue;
        level(to) = level(node) + 1;
        queue.push_back(to);
      }
    }
    return level(sink_) != kUnreached;
  }

  // One path down the levels; edges found useless in this phase are not tried again. No recursion: a path may
  // be as long as there are nodes.
  int64_t Augment() {
    path_.clear();
    int32_t node = source_;
    while (node != sink_) {
      const auto edges = residual_.EdgesOf(node);
      size_t& i = next_[static_cast<size_t>(node)];
      while (i < edges.size() &&
             (residual_.left(edges[i]) == 0 || level(residual_.head(edges[i])) != level(node) + 1))
        ++i;
      if (i < edges.size()) {
        path_.push_back(edges[i]);
        node = residual_.head(edges[i]);
      } else if (path_.empty()) {
        return 0;
      } else {  // a dead end: back, and past the edge that led here
        node = residual_.tail(path_.back());
        path_.pop_back();
        ++next_[static_cast<size_t>(node)];
      }
    }
    int64_t units = std::numeric_limits<int64_t>::max();
    for (const int32_t edge : path_) units = std::min(units, residual_.left(edge));
    for (const int32_t edge : path_) residual_.Push(edge, units);
    return units;
  }

  internal::ResidualNetwork residual_;
  const int32_t source_, sink_;
  std::vector<int32_t> level_;
  std::vector<size_t> next_;  // by node: the first of its edges still worth trying
  std::vector<int32_t> path_;
};

}  // namespace

absl::StatusOr<MaxFlowResult> MaxFlow(const FlowNetwork& network, NodeId source, NodeId sink) {
  if (absl::Status status = internal::CheckNetwork(network); !status.ok()) return status;
  const auto s = static_cast<int32_t>(source), t = static_cast<int32_t>(sink);
  if (s < 0 || t < 0 || s >= network.nodes || t >= network.nodes || s == t) {
    return absl::InvalidArgumentError(
        Cat("source ", s, " and sink ", t, " must be two nodes in [0, ", network.nodes, ")"));
  }
  return Dinic(network, s, t).Run();
}

}  // namespace orrery
