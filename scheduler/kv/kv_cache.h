// The KV accounting of one worker: the block pool, the prefix index over it, and an eviction policy for
// blocks that nobody holds but that may be wanted again.
#ifndef ORRERY_SCHEDULER_KV_KV_CACHE_H_
#define ORRERY_SCHEDULER_KV_KV_CACHE_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "scheduler/base/hash.h"
#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/kv/block_hash.h"
#include "scheduler/kv/block_pool.h"
#include "scheduler/kv/eviction_policy.h"
#include "scheduler/kv/prefix_index.h"

namespace orrery {

class KvCache {
 public:
  // Without a prefix cache nothing is ever published or found. `eviction` is used only with one.
  KvCache(int32_t num_blocks, int32_t block_tokens, bool prefix_cache,
          std::unique_ptr<EvictionPolicy> eviction);

  // Blocks that Allocate can give: free ones and cached ones.
  int32_t available() const { return pool_.num_free() + num_cached_; }
  int32_t num_cached() const { return num_cached_; }
  const BlockPool& pool() const { return pool_; }
  uint64_t version() const { return index_ ? index_->version() : 0; }
  uint64_t evicted() const { return evicted_; }
  // Grows whenever a block comes to be held by two, or by two no longer; equal versions, equal sharing.
  uint64_t sharing_version() const { return sharing_version_; }
  bool enabled() const { return index_ != nullptr; }
  // The cache tells what it holds, and from now on how that changes. REQUIRES: enabled().
  void TellPrefixes() { index_->TellAll(); }
  PrefixLog& prefix_log() { return index_->log(); }

  // The time of what comes next: blocks are found and let go then. Never goes back.
  void AdvanceTo(Time now) { now_ = std::max(now_, now); }

  // Appends `count` blocks to *table, each held once, or takes nothing and returns false.
  [[nodiscard]] bool Allocate(int32_t count, std::vector<BlockId>* table);
  // Lets go of one reference of each. Blocks with a published prefix stay cached.
  void Release(absl::Span<const BlockId> table);
  // As Release, but what nobody else holds is forgotten: its content is not to be trusted.
  void Discard(absl::Span<const BlockId> table);

  // Appends to *found the blocks that hold the leading blocks of `tokens`, from index found->size() on and at
  // most `chain.size()` in all. Takes no reference. O(blocks found).
  void Match(absl::Span<const Hash128> chain, const TokenList& tokens, std::vector<BlockId>* found) const;
  bool Has(BlockId block, const Hash128& name) const { return index_ && index_->Has(block, name); }
  // One more reference of each; cached ones are held again. Counts as a hit.
  void Hold(absl::Span<const BlockId> blocks);
  // Makes a held, full block findable. Where the same prefix is there already, that block is held instead and
  // the given one let go: equal prefixes share memory, and whoever holds a block holds its parents. Returns
  // the block to use from now on. REQUIRES: the chain's parents were published by the same holder.
  [[nodiscard]] BlockId Publish(BlockId block, const Hash128& name, const TokenList& tokens, int32_t index);

  // `references` as counted from the tables of all sequences must equal the pool's, [num_blocks].
  absl::Status CheckInvariants(absl::Span<const int32_t> references) const;

 private:
  BlockPool pool_;
  std::unique_ptr<PrefixIndex> index_;  // null: off
  std::unique_ptr<EvictionPolicy> eviction_;
  std::vector<uint32_t> hits_;  // by block id, since published; grown to the largest id published
  Time now_;
  int32_t num_cached_ = 0;
  uint64_t evicted_ = 0;
  uint64_t sharing_version_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_KV_KV_CACHE_H_
