// The waiting sequences in arrival order as policies see them: the views are stored, not rebuilt, since a
// long queue hardly changes from step to step.
#ifndef ORRERY_SCHEDULER_WORKER_WAITING_LIST_H_
#define ORRERY_SCHEDULER_WORKER_WAITING_LIST_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/types/sequence_view.h"
#include "scheduler/worker/sequence.h"

namespace orrery {

class WaitingList {
 public:
  // O(1) for the latest arrival, else a move of all later ones.
  void Insert(const SequenceView& view, Sequence* sequence);
  // O(log n); leaves a hole until the next Compact. REQUIRES: inside.
  void Remove(SequenceId id);
  // Closes the holes; views() and sequences() are valid until the next change.
  void Compact();

  int32_t size() const { return static_cast<int32_t>(views_.size()) - holes_; }
  absl::Span<SequenceView> views() { return absl::MakeSpan(views_); }
  absl::Span<Sequence* const> sequences() const { return sequences_; }  // null: a hole

 private:
  size_t Position(SequenceId id) const;  // of the first view that is not earlier
  std::vector<SequenceView> views_;      // ascending id
  std::vector<Sequence*> sequences_;     // [views_.size()]
  int32_t holes_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_WORKER_WAITING_LIST_H_
