// Which cached block goes first. A block is cached when nobody holds it but it still carries a published
// prefix; it stays until the pool needs it for something else.
#ifndef ORRERY_SCHEDULER_KV_EVICTION_POLICY_H_
#define ORRERY_SCHEDULER_KV_EVICTION_POLICY_H_

#include <cstdint>

#include "scheduler/base/ids.h"

namespace orrery {

struct CachedBlock {
  BlockId block{};
  int32_t depth = 0;  // its index in its chain: what it costs to compute again grows with it
  uint32_t hits = 0;  // how often it was found since it was published
};

// Deterministic: same calls, same victims. The blocks of a sequence arrive tail first, since a block is
// useless once its parent is gone.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  virtual void Insert(const CachedBlock& block) = 0;  // REQUIRES: not inside
  virtual void Remove(BlockId block) = 0;             // somebody holds it again; REQUIRES: inside
  virtual BlockId Evict() = 0;                        // the victim, removed; REQUIRES: not empty
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_KV_EVICTION_POLICY_H_
