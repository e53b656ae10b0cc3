// Which prefixes were sent to which worker: a tree over the full blocks of prompts, whose nodes are named by
// their hash chain (scheduler/kv/block_hash.h), so that a name stands for all tokens before it and prompts of
// different salts share nothing. It is a guess of what workers have cached: what they evict nobody tells.
//
// For each worker the tree remembers the blocks used last, up to a bound. A path is used from its end to its
// root; so whatever leaves is a leaf, and with a block a worker also has all before it.
#ifndef ORRERY_ROUTER_POLICY_PREFIX_TREE_H_
#define ORRERY_ROUTER_POLICY_PREFIX_TREE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "router/policy/route_policy.h"
#include "scheduler/base/hash.h"
#include "scheduler/base/ids.h"

namespace orrery {

// Names of the full blocks at the start of a prompt, none where its ids are not known. O(prompt).
void NameBlocks(const Waiting& request, int32_t block_tokens, std::vector<Hash128>* names);

class PrefixTree {
 public:
  struct Holder {
    WorkerId worker{};
    int32_t entry = 0;  // the tree's own
  };

  // Forgets all workers that are not among these. O(workers).
  void Keep(absl::Span<const WorkerLoad> workers);
  // The worker was sent a prompt of these blocks; it remembers at most `most` in all. O(blocks).
  void Insert(absl::Span<const Hash128> names, WorkerId worker, int64_t most);

  // How many blocks from the first on anybody has, or this worker. O(log blocks).
  size_t Matched(absl::Span<const Hash128> names) const;
  size_t Matched(absl::Span<const Hash128> names, WorkerId worker) const;
  // Who has a block (and all before it), ascending id.
  absl::Span<const Holder> HoldersOf(const Hash128& name) const;

  // Blocks of all workers together.
  int64_t size() const { return size_; }

 private:
  // A block of one worker; its place in the worker's ring, the one used last first.
  struct Entry {
    Hash128 name;
    int32_t before = 0, after = 0;
  };
  struct Ring {
    WorkerId worker{};
    int32_t head = 0;  // an entry without a name
    int64_t size = 0;
  };
  using Holders = absl::InlinedVector<Holder, 2>;

  Ring* RingOf(WorkerId worker);
  void Evict(Ring* ring);
  int32_t NewEntry();
  void LinkFirst(const Ring& ring, int32_t entry);
  void Unlink(int32_t entry);
  Entry& entry(int32_t i) { return entries_[static_cast<size_t>(i)]; }

  absl::flat_hash_map<Hash128, Holders> nodes_;  // never iterated
  std::vector<Entry> entries_;
  std::vector<int32_t> free_;
  std::vector<Ring> rings_;  // ascending worker
  int64_t size_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_PREFIX_TREE_H_
