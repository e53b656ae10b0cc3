#include "scheduler/worker/waiting_list.h"

#include <algorithm>

#include "scheduler/base/check.h"

namespace orrery {

size_t WaitingList::Position(SequenceId id) const {
  if (views_.empty() || views_.back().id < id) return views_.size();
  const auto found = std::lower_bound(views_.begin(), views_.end(), id,
                                      [](const SequenceView& view, SequenceId key) { return view.id < key; });
  return static_cast<size_t>(found - views_.begin());
}

void WaitingList::Insert(const SequenceView& view, Sequence* sequence) {
  const size_t at = Position(view.id);
  if (at < views_.size() && views_[at].id == view.id) {  // its own hole
    ORRERY_CHECK(sequences_[at] == nullptr);
    views_[at] = view;
    sequences_[at] = sequence;
    --holes_;
    return;
  }
  views_.insert(views_.begin() + static_cast<ptrdiff_t>(at), view);
  sequences_.insert(sequences_.begin() + static_cast<ptrdiff_t>(at), sequence);
}

void WaitingList::Remove(SequenceId id) {
  const size_t at = Position(id);
  ORRERY_CHECK(at < views_.size() && views_[at].id == id && sequences_[at] != nullptr);
  sequences_[at] = nullptr;
  ++holes_;
}

void WaitingList::Compact() {
  if (holes_ == 0) return;
  size_t kept = 0;
  for (size_t i = 0; i < views_.size(); ++i) {
    if (sequences_[i] == nullptr) continue;
    if (kept != i) {
      views_[kept] = views_[i];
      sequences_[kept] = sequences_[i];
    }
    ++kept;
  }
  views_.resize(kept);
  sequences_.resize(kept);
  holes_ = 0;
}

}  // namespace orrery
