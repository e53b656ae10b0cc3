// What a prefix cache has yet to tell the router: its changes in order, and first, or after too many of them,
// all that it holds. Memory is bounded by the cache: who is not heard for long is told all anew.
#ifndef ORRERY_SCHEDULER_KV_PREFIX_LOG_H_
#define ORRERY_SCHEDULER_KV_PREFIX_LOG_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "scheduler/types/prefix_event.h"

namespace orrery {

class PrefixLog {
 public:
  // What is told next voids all that was told before.
  void Begin() {
    pending_.clear();
    next_ = 0;
    anew_ = on_ = true;
  }
  bool on() const { return on_; }
  bool empty() const { return next_ == pending_.size() && !anew_; }
  // So many wait that telling all of a cache with `size` names would be shorter.
  bool TooLong(size_t size) const { return pending_.size() - next_ > 2 * size + kMostPrefixEvents; }
  void Add(const Hash128& name, bool stored) { pending_.push_back({name, stored}); }

  // The next ones, at most kMostPrefixEvents, into *events; true when they void what was told before. The
  // number of the last one told is number().
  bool Take(std::vector<PrefixEvent>* events) {
    const size_t count = std::min(pending_.size() - next_, kMostPrefixEvents);
    const auto begin = pending_.begin() + static_cast<ptrdiff_t>(next_);
    events->assign(begin, begin + static_cast<ptrdiff_t>(count));
    next_ += count;
    number_ += count;
    if (next_ * 2 >= pending_.size()) {
      pending_.erase(pending_.begin(), pending_.begin() + static_cast<ptrdiff_t>(next_));
      next_ = 0;
    }
    return std::exchange(anew_, false);
  }
  uint64_t number() const { return number_; }

 private:
  bool on_ = false, anew_ = false;
  std::vector<PrefixEvent> pending_;
  size_t next_ = 0;
  uint64_t number_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_KV_PREFIX_LOG_H_
