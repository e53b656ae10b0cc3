// Waiting sequences from the smallest key on, ties by arrival. A heap: a policy that stops after a few pays
// for those few, O(waiting + taken log waiting).
#ifndef ORRERY_SCHEDULER_POLICY_WAITING_ORDER_H_
#define ORRERY_SCHEDULER_POLICY_WAITING_ORDER_H_

#include <algorithm>
#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/types/sequence_view.h"

namespace orrery {

class WaitingOrder {
 public:
  // `key(view)` as a double.
  template <typename Key>
  void Build(absl::Span<const SequenceView> waiting, Key key) {
    heap_.clear();
    for (size_t i = 0; i < waiting.size(); ++i) heap_.emplace_back(key(waiting[i]), i);
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  }
  void Clear() { heap_.clear(); }
  // The next one's index and key. REQUIRES: not empty().
  size_t best() const { return heap_.front().second; }
  double best_key() const { return heap_.front().first; }
  bool empty() const { return heap_.empty(); }
  // Index into `waiting`. REQUIRES: not empty().
  size_t Pop() {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const size_t index = heap_.back().second;
    heap_.pop_back();
    return index;
  }

 private:
  std::vector<std::pair<double, size_t>> heap_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_WAITING_ORDER_H_
