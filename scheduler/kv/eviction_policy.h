// Which cached block goes first. A block is cached when nobody holds it but it still carries a published
// prefix; it stays until the pool needs it for something else.
#ifndef ORRERY_SCHEDULER_KV_EVICTION_POLICY_H_
#define ORRERY_SCHEDULER_KV_EVICTION_POLICY_H_

#include <cstdint>

#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"

namespace orrery {

class StepCostModel;

inline constexpr BlockId kNoBlock{-1};

struct CachedBlock {
  BlockId block{};
  int32_t depth = 0;          // its index in its chain: what it costs to compute again grows with it
  uint32_t hits = 0;          // how often it was found since it was published
  BlockId parent = kNoBlock;  // the one before it in its chain, which whoever held it held as well
  Time let_go{};              // by the last who held it; never before that of an earlier Insert
};

// Deterministic: same calls, same victims. The blocks of a sequence arrive tail first, since a block is
// useless once its parent is gone: when a block arrives, its parent is not inside.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  // Once, before all else: what the worker believes steps cost (null: nothing), which outlives the policy's
  // use, and the size of a block.
  virtual void UseCost(const StepCostModel*, int32_t /*block_tokens*/) {}
  // A published block, inside or not, was found; for the `hits`th time since it was published.
  virtual void Hit(BlockId, uint32_t /*hits*/, Time) {}
  virtual void Insert(const CachedBlock& block) = 0;  // REQUIRES: not inside
  virtual void Remove(BlockId block) = 0;             // somebody holds it again; REQUIRES: inside
  virtual BlockId Evict() = 0;                        // the victim, removed; REQUIRES: not empty
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_KV_EVICTION_POLICY_H_
