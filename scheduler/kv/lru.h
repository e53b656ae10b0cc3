// Least recently used eviction: blocks leave in the order in which they were last let go. O(1) per call.
#ifndef ORRERY_SCHEDULER_KV_LRU_H_
#define ORRERY_SCHEDULER_KV_LRU_H_

#include <cstdint>
#include <vector>

#include "scheduler/kv/eviction_policy.h"

namespace orrery {

class LruEviction final : public EvictionPolicy {
 public:
  void Insert(const CachedBlock& block) override;
  void Remove(BlockId block) override;
  BlockId Evict() override;

 private:
  // A doubly linked ring: entry 0 is its head, entry 1 + id belongs to block id.
  struct Link {
    int32_t before = -1, after = -1;  // -1: not inside
  };
  std::vector<Link> links_ = {{0, 0}};  // grows with the largest id seen
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_KV_LRU_H_
