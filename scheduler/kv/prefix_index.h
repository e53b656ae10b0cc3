// Which block holds the KV of which prefix: block name -> block. A hit is believed only after the tokens of
// the block were compared, so that even a collision of names cannot serve a wrong prefix.
#ifndef ORRERY_SCHEDULER_KV_PREFIX_INDEX_H_
#define ORRERY_SCHEDULER_KV_PREFIX_INDEX_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "scheduler/base/hash.h"
#include "scheduler/base/ids.h"
#include "scheduler/kv/block_hash.h"
#include "scheduler/kv/prefix_log.h"

namespace orrery {

class PrefixIndex {
 public:
  explicit PrefixIndex(int32_t block_tokens) : block_tokens_(block_tokens) {}

  // The block with this name whose tokens are those of block `index` of `tokens`.
  std::optional<BlockId> Find(const Hash128& name, const TokenList& tokens, int32_t index) const;
  // False (and nothing changed) when another block has the name already. REQUIRES: !published(block).
  bool Publish(BlockId block, const Hash128& name, const TokenList& tokens, int32_t index);
  void Withdraw(BlockId block);  // REQUIRES: published(block)

  bool published(BlockId block) const {
    return static_cast<size_t>(Value(block)) < depth_.size() && depth_[Value(block)] >= 0;
  }
  bool Has(BlockId block, const Hash128& name) const {
    return published(block) && names_[Value(block)] == name;
  }
  int32_t depth(BlockId block) const { return depth_[Value(block)]; }  // REQUIRES: published(block)
  int32_t size() const { return static_cast<int32_t>(blocks_.size()); }
  // Grows with every change; equal versions, equal answers.
  uint64_t version() const { return version_; }
  // From now on every change is logged, after all that is there.
  void TellAll();
  PrefixLog& log() { return log_; }

 private:
  void Log(const Hash128& name, bool stored);

  int32_t block_tokens_;
  uint64_t version_ = 0;
  absl::flat_hash_map<Hash128, BlockId> blocks_;  // never iterated
  // By block id; grown to the largest id ever published.
  std::vector<Hash128> names_;   // [blocks]
  std::vector<int32_t> depth_;   // [blocks], -1: not published
  std::vector<TokenId> tokens_;  // [blocks, block_tokens]
  PrefixLog log_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_KV_PREFIX_INDEX_H_
