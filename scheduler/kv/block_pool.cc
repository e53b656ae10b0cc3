#include "scheduler/kv/block_pool.h"

#include "scheduler/base/check.h"

namespace orrery {

BlockPool::BlockPool(int32_t num_blocks) : num_blocks_(num_blocks) { ORRERY_CHECK(num_blocks > 0); }

BlockId BlockPool::Take() {
  if (freed_.empty()) {
    ORRERY_CHECK(fresh_ < num_blocks_);
    references_.push_back(1);
    return BlockId{fresh_++};
  }
  const BlockId block = freed_.back();
  freed_.pop_back();
  references_[Value(block)] = 1;
  return block;
}

void BlockPool::Hold(BlockId block) { ++references_[Value(block)]; }

int32_t BlockPool::Drop(BlockId block) {
  ORRERY_CHECK(references(block) > 0);
  return --references_[Value(block)];
}

void BlockPool::Free(BlockId block) {
  ORRERY_CHECK(Value(block) < fresh_ && references_[Value(block)] == 0);
  freed_.push_back(block);
}

}  // namespace orrery
