#include "scheduler/kv/lru.h"

#include "scheduler/base/check.h"

namespace orrery {

void LruEviction::Insert(const CachedBlock& block) {
  const int32_t entry = Value(block.block) + 1;
  if (static_cast<size_t>(entry) >= links_.size()) links_.resize(static_cast<size_t>(entry) + 1);
  ORRERY_CHECK(links_[entry].before < 0);
  const int32_t newest = links_[0].before;
  links_[entry] = {newest, 0};
  links_[newest].after = entry;
  links_[0].before = entry;
}

void LruEviction::Remove(BlockId block) {
  const int32_t entry = Value(block) + 1;
  ORRERY_CHECK(static_cast<size_t>(entry) < links_.size());
  const Link link = links_[entry];
  ORRERY_CHECK(link.before >= 0);
  links_[link.before].after = link.after;
  links_[link.after].before = link.before;
  links_[entry] = {};
}

BlockId LruEviction::Evict() {
  const int32_t oldest = links_[0].after;
  ORRERY_CHECK(oldest != 0);
  const BlockId block{oldest - 1};
  Remove(block);
  return block;
}

}  // namespace orrery
