#include "scheduler/kv/kv_cache.h"

#include <algorithm>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/base/text.h"

namespace orrery {

KvCache::KvCache(int32_t num_blocks, int32_t block_tokens, bool prefix_cache,
                 std::unique_ptr<EvictionPolicy> eviction)
    : pool_(num_blocks), eviction_(std::move(eviction)) {
  if (!prefix_cache) return;
  ORRERY_CHECK(eviction_ != nullptr);
  index_ = std::make_unique<PrefixIndex>(block_tokens);
}

bool KvCache::Allocate(int32_t count, std::vector<BlockId>* table) {
  if (count <= 0) return true;  // as for most rows of most steps
  if (count > available()) return false;
  const int32_t free = std::min(count, pool_.num_free());
  pool_.Take(free, table);
  for (int32_t i = free; i < count; ++i) {
    const BlockId victim = eviction_->Evict();
    index_->Withdraw(victim);
    pool_.Free(victim);
    --num_cached_;
    ++evicted_;
    table->push_back(pool_.Take());
  }
  return true;
}

void KvCache::Release(absl::Span<const BlockId> table) {
  if (index_ == nullptr || index_->size() == 0) {
    sharing_version_ += pool_.Release(table);
    return;
  }
  for (size_t i = table.size(); i-- > 0;) {
    const BlockId block = table[i];
    if (pool_.Drop(block) > 0) {
      ++sharing_version_;
      continue;
    }
    if (index_->published(block)) {
      // Whoever holds a block holds its parents, so the parent is held until the next turn of this loop.
      eviction_->Insert({.block = block,
                         .depth = index_->depth(block),
                         .hits = hits_[Value(block)],
                         .parent = i > 0 ? table[i - 1] : kNoBlock,
                         .let_go = now_});
      ++num_cached_;
    } else {
      pool_.Free(block);
    }
  }
}

void KvCache::Discard(absl::Span<const BlockId> table) {
  for (const BlockId block : table) {
    if (pool_.Drop(block) > 0) {
      ++sharing_version_;
      continue;
    }
    if (index_ && index_->published(block)) index_->Withdraw(block);
    pool_.Free(block);
  }
}

void KvCache::Match(absl::Span<const Hash128> chain, const TokenList& tokens,
                    std::vector<BlockId>* found) const {
  if (!index_) return;
  for (size_t i = found->size(); i < chain.size(); ++i) {
    const auto block = index_->Find(chain[i], tokens, static_cast<int32_t>(i));
    if (!block.has_value()) return;
    found->push_back(*block);
  }
}

void KvCache::Hold(absl::Span<const BlockId> blocks) {
  for (const BlockId block : blocks) {
    if (pool_.references(block) == 0) {
      eviction_->Remove(block);
      --num_cached_;
    } else {
      ++sharing_version_;
    }
    pool_.Hold(block);
    eviction_->Hit(block, ++hits_[Value(block)], now_);
  }
}

BlockId KvCache::Publish(BlockId block, const Hash128& name, const TokenList& tokens, int32_t index) {
  if (!index_ || index_->published(block)) return block;
  if (const auto twin = index_->Find(name, tokens, index); twin.has_value()) {
    Hold(absl::MakeConstSpan(&*twin, 1));
    Release(absl::MakeConstSpan(&block, 1));
    return *twin;
  }
  if (!index_->Publish(block, name, tokens, index)) return block;
  if (const auto needed = static_cast<size_t>(Value(block)) + 1; needed > hits_.size()) hits_.resize(needed);
  hits_[Value(block)] = 0;
  return block;
}

absl::Status KvCache::CheckInvariants(absl::Span<const int32_t> references) const {
  int32_t held = 0, cached = 0, published = 0;
  for (int32_t i = 0; i < pool_.num_blocks(); ++i) {
    const BlockId block{i};
    if (pool_.references(block) != references[i]) {
      return absl::InternalError(Cat("block ", i, " has ", pool_.references(block),
                                     " references, tables hold it ", references[i], " times"));
    }
    held += references[i] > 0;
    published += index_ && index_->published(block);
    cached += references[i] == 0 && index_ && index_->published(block);
  }
  if (cached != num_cached_) return absl::InternalError("count of cached blocks is wrong");
  if (held + cached + pool_.num_free() != pool_.num_blocks()) {
    return absl::InternalError(Cat("blocks leaked: held ", held, ", cached ", cached, ", free ",
                                   pool_.num_free(), " of ", pool_.num_blocks()));
  }
  if (index_ && index_->size() != published) return absl::InternalError("prefix index lists a lost block");
  return absl::OkStatus();
}

}  // namespace orrery
