#include "scheduler/kv/prefix_index.h"

#include "scheduler/base/check.h"

namespace orrery {

std::optional<BlockId> PrefixIndex::Find(const Hash128& name, const TokenList& tokens, int32_t index) const {
  const auto found = blocks_.find(name);
  if (found == blocks_.end()) return std::nullopt;
  const BlockId block = found->second;
  if (depth_[Value(block)] != index) return std::nullopt;
  const TokenId* stored = &tokens_[static_cast<size_t>(Value(block)) * block_tokens_];
  for (int32_t i = 0; i < block_tokens_; ++i) {
    if (stored[i] != tokens[index * block_tokens_ + i]) return std::nullopt;
  }
  return block;
}

bool PrefixIndex::Publish(BlockId block, const Hash128& name, const TokenList& tokens, int32_t index) {
  ORRERY_CHECK(!published(block));
  if (!blocks_.emplace(name, block).second) return false;
  if (const auto needed = static_cast<size_t>(Value(block)) + 1; needed > depth_.size()) {
    names_.resize(needed);
    depth_.resize(needed, -1);
    tokens_.resize(needed * block_tokens_);
  }
  names_[Value(block)] = name;
  depth_[Value(block)] = index;
  TokenId* stored = &tokens_[static_cast<size_t>(Value(block)) * block_tokens_];
  for (int32_t i = 0; i < block_tokens_; ++i) stored[i] = tokens[index * block_tokens_ + i];
  ++version_;
  Log(name, true);
  return true;
}

void PrefixIndex::Withdraw(BlockId block) {
  ORRERY_CHECK(published(block));
  blocks_.erase(names_[Value(block)]);
  depth_[Value(block)] = -1;
  ++version_;
  Log(names_[Value(block)], false);
}

void PrefixIndex::Log(const Hash128& name, bool stored) {
  if (!log_.on()) return;
  if (log_.TooLong(blocks_.size())) return TellAll();
  log_.Add(name, stored);
}

void PrefixIndex::TellAll() {
  log_.Begin();
  for (size_t block = 0; block < depth_.size(); ++block) {
    if (depth_[block] >= 0) log_.Add(names_[block], true);
  }
}

}  // namespace orrery
