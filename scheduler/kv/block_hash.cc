#include "scheduler/kv/block_hash.h"

namespace orrery {
namespace {

// Second half of the SipHash key: one constant per use, so that no two uses share a function.
constexpr uint64_t kRootUse = 1, kBlockUse = 2, kKeyIdUse = 3;

uint64_t Pair(TokenId first, TokenId second) {
  return uint64_t{static_cast<uint32_t>(first)} | (uint64_t{static_cast<uint32_t>(second)} << 32);
}

}  // namespace

Hash128 ChainRoot(uint64_t hash_key, uint64_t cache_salt) {
  SipHash24 hash(hash_key, kRootUse);
  hash.Add(cache_salt);
  return hash.Finish();
}

Hash128 BlockHash(uint64_t hash_key, const Hash128& parent, const TokenList& tokens, int32_t index,
                  int32_t block_tokens) {
  SipHash24 hash(hash_key, kBlockUse);
  hash.Add(parent.low);
  hash.Add(parent.high);
  const int32_t begin = index * block_tokens, end = begin + block_tokens;
  for (int32_t i = begin; i < end; i += 2) hash.Add(Pair(tokens[i], i + 1 < end ? tokens[i + 1] : -1));
  return hash.Finish();
}

uint64_t HashKeyId(uint64_t hash_key) { return SipHash24(hash_key, kKeyIdUse).Finish().low; }

}  // namespace orrery
