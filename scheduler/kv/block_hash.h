// Names of full KV blocks: a keyed chain, so that a block's name covers every token before it. The key is the
// deployment's secret (a client cannot aim at collisions); the salt separates tenants that must not learn
// from each other's hits.
#ifndef ORRERY_SCHEDULER_KV_BLOCK_HASH_H_
#define ORRERY_SCHEDULER_KV_BLOCK_HASH_H_

#include <cstdint>

#include "absl/types/span.h"
#include "scheduler/base/hash.h"
#include "scheduler/base/ids.h"

namespace orrery {

// The token ids of a sequence: those it came with, then those it made here. Views, not owned.
struct TokenList {
  absl::Span<const TokenId> given, made;
  int32_t size() const { return static_cast<int32_t>(given.size() + made.size()); }
  TokenId operator[](int32_t i) const {
    const auto index = static_cast<size_t>(i);
    return index < given.size() ? given[index] : made[index - given.size()];
  }
};

// Where every chain of this key and salt starts.
Hash128 ChainRoot(uint64_t hash_key, uint64_t cache_salt);
// The name of block `index` (tokens [index * block_tokens, + block_tokens)), given that of the block before.
Hash128 BlockHash(uint64_t hash_key, const Hash128& parent, const TokenList& tokens, int32_t index,
                  int32_t block_tokens);
// Equal on both ends of a link when the keys are; tells nothing about the key.
uint64_t HashKeyId(uint64_t hash_key);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_KV_BLOCK_HASH_H_
