// The residual network both flow algorithms work on. Edge 2a is arc a forwards, 2a + 1 backwards.
#ifndef ORRERY_SCHEDULER_SOLVER_FLOW_NETWORK_H_
#define ORRERY_SCHEDULER_SOLVER_FLOW_NETWORK_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/solver/flow.h"

namespace orrery::internal {

class ResidualNetwork {
 public:
  // REQUIRES: every arc names nodes of the network.
  explicit ResidualNetwork(const FlowNetwork& network);

  int32_t nodes() const { return static_cast<int32_t>(first_.size()) - 1; }
  absl::Span<const int32_t> EdgesOf(int32_t node) const {
    const auto begin = static_cast<size_t>(first_[static_cast<size_t>(node)]);
    const auto end = static_cast<size_t>(first_[static_cast<size_t>(node) + 1]);
    return absl::MakeConstSpan(edges_).subspan(begin, end - begin);
  }
  int32_t head(int32_t edge) const { return head_[static_cast<size_t>(edge)]; }
  int32_t tail(int32_t edge) const { return head(edge ^ 1); }
  int64_t left(int32_t edge) const { return left_[static_cast<size_t>(edge)]; }
  void Push(int32_t edge, int64_t units) {
    left_[static_cast<size_t>(edge)] -= units;
    left_[static_cast<size_t>(edge ^ 1)] += units;
  }
  std::vector<int64_t> Flow() const;

 private:
  std::vector<int32_t> first_, edges_;  // edges out of node n: edges_[first_[n] .. first_[n + 1])
  std::vector<int32_t> head_;
  std::vector<int64_t> left_;
};

// The checks that flow.h promises.
absl::Status CheckNetwork(const FlowNetwork& network);

}  // namespace orrery::internal

#endif  // ORRERY_SCHEDULER_SOLVER_FLOW_NETWORK_H_
