// What a policy remembers of each sequence. Cancelled ones are told to no policy, so those that a view does
// not show are forgotten once there are many: amortised O(1) per step, at most about three times as many
// entries as sequences. Looked up only, never walked: the order of a hash map decides nothing.
#ifndef ORRERY_SCHEDULER_POLICY_PER_SEQUENCE_H_
#define ORRERY_SCHEDULER_POLICY_PER_SEQUENCE_H_

#include <cstddef>

#include "absl/container/flat_hash_map.h"
#include "scheduler/policy/batch_policy.h"

namespace orrery {

template <typename T>
class PerSequence {
 public:
  // Null: not known. Until the next Set.
  const T* Find(SequenceId id) const {
    const auto found = values_.find(id);
    return found == values_.end() ? nullptr : &found->second;
  }
  void Set(SequenceId id, const T& value) { values_[id] = value; }
  void Erase(SequenceId id) { values_.erase(id); }
  void ForgetAbsent(const WorkerView& worker) {
    if (values_.size() <= kSlack + 2 * (worker.running.size() + worker.waiting.size())) return;
    absl::flat_hash_map<SequenceId, T> kept;
    for (const absl::Span<const SequenceView> views : {worker.running, worker.waiting}) {
      for (const SequenceView& sequence : views) {
        if (const T* value = Find(sequence.id)) kept[sequence.id] = *value;
      }
    }
    values_.swap(kept);
  }

 private:
  static constexpr size_t kSlack = 4096;
  absl::flat_hash_map<SequenceId, T> values_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_PER_SEQUENCE_H_
