// A change of a worker's prefix cache, as it is told to the router.
#ifndef ORRERY_SCHEDULER_TYPES_PREFIX_EVENT_H_
#define ORRERY_SCHEDULER_TYPES_PREFIX_EVENT_H_

#include <cstddef>

#include "scheduler/base/hash.h"

namespace orrery {

// A full block of this name (scheduler/kv/block_hash.h) can be found from now on, or no longer.
struct PrefixEvent {
  Hash128 name;
  bool stored = false;
  friend bool operator==(const PrefixEvent&, const PrefixEvent&) = default;
};

inline constexpr size_t kMostPrefixEvents = 4096;  // of one snapshot; the rest comes with the next

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_TYPES_PREFIX_EVENT_H_
