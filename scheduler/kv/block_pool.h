// The ids of the KV pool with their reference counts. Only ids: the bytes are the engine's.
#ifndef ORRERY_SCHEDULER_KV_BLOCK_POOL_H_
#define ORRERY_SCHEDULER_KV_BLOCK_POOL_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/base/check.h"
#include "scheduler/base/ids.h"

namespace orrery {

// A block is free (in the list), held (references > 0), or detached: references 0 and not free, which is
// where a prefix cache keeps it. All O(1). Ids that were freed are used again before fresh ones, so a pool
// costs what was ever held at once, not what it could hold.
class BlockPool {
 public:
  explicit BlockPool(int32_t num_blocks) : num_blocks_(num_blocks) { ORRERY_CHECK(num_blocks > 0); }

  int32_t num_blocks() const { return num_blocks_; }
  int32_t num_free() const { return num_blocks_ - fresh_ + static_cast<int32_t>(freed_.size()); }
  int32_t references(BlockId block) const { return Value(block) < fresh_ ? references_[Value(block)] : 0; }

  // references 0 -> 1; REQUIRES: num_free() > 0
  BlockId Take() {
    if (freed_.empty()) {
      ORRERY_CHECK(fresh_ < num_blocks_);
      references_.push_back(1);
      return BlockId{fresh_++};
    }
    const BlockId block = freed_.back();
    freed_.pop_back();
    references_[static_cast<size_t>(Value(block))] = 1;
    return block;
  }
  // The same `count` times, appended to *table.
  void Take(int32_t count, std::vector<BlockId>* table) {
    if (count == 1) return table->push_back(Take());  // most calls: a decode that enters its next block
    const auto again = std::min(freed_.size(), static_cast<size_t>(count));
    table->insert(table->end(), freed_.rbegin(), freed_.rbegin() + static_cast<std::ptrdiff_t>(again));
    freed_.resize(freed_.size() - again);
    for (auto at = table->end() - static_cast<std::ptrdiff_t>(again); at != table->end(); ++at) {
      references_[static_cast<size_t>(Value(*at))] = 1;
    }
    for (auto fresh = static_cast<size_t>(count) - again; fresh > 0; --fresh) table->push_back(Take());
  }
  // One more reference; a detached block is held again.
  void Hold(BlockId block) {
    uint16_t& references = references_[static_cast<size_t>(Value(block))];
    ORRERY_CHECK(references < std::numeric_limits<uint16_t>::max());
    ++references;
  }
  // Returns the references left; at 0 the block is detached.
  int32_t Drop(BlockId block) {
    ORRERY_CHECK(references(block) > 0);
    return --references_[static_cast<size_t>(Value(block))];
  }
  // Drops each, the last first, and frees what nobody else holds; returns how many somebody does.
  int32_t Release(absl::Span<const BlockId> table) {
    size_t end = freed_.size();
    freed_.resize(end + table.size());
    for (size_t i = table.size(); i-- > 0;) {
      if (Drop(table[i]) == 0) freed_[end++] = table[i];
    }
    const size_t still = freed_.size() - end;
    freed_.resize(end);
    return static_cast<int32_t>(still);
  }
  // REQUIRES: detached.
  void Free(BlockId block) {
    ORRERY_CHECK(Value(block) < fresh_ && references(block) == 0);
    freed_.push_back(block);
  }

 private:
  int32_t num_blocks_;
  int32_t fresh_ = 0;                // ids [fresh_, num_blocks) were never used
  std::vector<BlockId> freed_;       // last freed first
  // [fresh_]; a sequence holds a block once, and there are at most 4,096 at a time. Half the size is half the
  // cache lines in a simulation of many workers.
  std::vector<uint16_t> references_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_KV_BLOCK_POOL_H_
