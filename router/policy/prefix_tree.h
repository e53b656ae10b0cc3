// Which prefixes which worker has: a tree over the full blocks of prompts, whose nodes are named by their
// hash chain (scheduler/kv/block_hash.h), so that a name stands for all tokens before it and prompts of
// different salts share nothing.
//
// What a worker told stays until it tells otherwise (Tell). What was sent to it is a guess (Insert): of those
// that tell nothing it stands for what they have cached, of the others for what they compute just now.
// Guesses are remembered up to a bound, those used last. A path is used from its end to its root, and workers
// evict leaves; so with a block a worker has all before it, but for what it lost by a failed step.
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
#include "scheduler/types/prefix_event.h"

namespace orrery {

// Names of the full blocks at the start of a prompt, none where its ids are not known. O(prompt).
void NameBlocks(const Waiting& request, uint64_t hash_key, int32_t block_tokens, std::vector<Hash128>* names);

class PrefixTree {
 public:
  explicit PrefixTree(int32_t block_tokens) : block_tokens_(block_tokens) {}
  int32_t block_tokens() const { return block_tokens_; }

  struct Holder {
    WorkerId worker{};
    int32_t entry = 0;  // the tree's own
  };

  // Forgets all workers that are not among these. O(workers).
  void Keep(absl::Span<const WorkerLoad> workers);
  // The worker was sent a prompt of these blocks; guesses about it are at most `most` in all. O(blocks).
  void Insert(absl::Span<const Hash128> names, WorkerId worker, int64_t most);
  // How many guesses about a worker are worth remembering: what it may not have computed yet when it tells
  // what it has, else what it can hold, at most its share of `blocks`. `placed_tokens`: since the snapshots.
  int64_t Room(const WorkerLoad& worker, absl::Span<const Hash128> names, int64_t placed_tokens,
               int64_t blocks, size_t num_workers) const;
  // The worker has these blocks from now on, or no longer. O(log workers) each.
  void Tell(WorkerId worker, absl::Span<const PrefixEvent> events);
  // How many it is known to have of those it told.
  int64_t NumTold(WorkerId worker) { return RingsOf(worker)->num_told; }
  // It has nothing any more.
  void Forget(WorkerId worker);

  // How many blocks from the first on anybody has, or this worker. O(log blocks).
  size_t Matched(absl::Span<const Hash128> names) const;
  size_t Matched(absl::Span<const Hash128> names, WorkerId worker) const;
  // Who has a block (and all before it), ascending id.
  absl::Span<const Holder> HoldersOf(const Hash128& name) const;

  // Blocks of all workers together.
  int64_t size() const { return size_; }

 private:
  // A block of one worker; its place in one of the worker's rings.
  struct Entry {
    Hash128 name;
    int32_t before = 0, after = 0;
    bool told = false;
  };
  // Rings of entries around one without a name.
  struct Rings {
    WorkerId worker{};
    int32_t guessed = 0;  // the one used last first
    int32_t told = 0;     // in no order
    int64_t num_guessed = 0, num_told = 0;
  };
  using Holders = absl::InlinedVector<Holder, 2>;

  Rings* RingsOf(WorkerId worker);
  // Of the worker's holding, which is made if need be.
  int32_t EntryOf(const Hash128& name, Rings* rings);
  void Erase(Rings* rings, int32_t entry);
  void Clear(Rings* rings);
  void SetTold(Rings* rings, int32_t entry);
  int32_t NewEntry();
  int32_t NewHead();
  void LinkAfter(int32_t head, int32_t entry);
  void Unlink(int32_t entry);
  Entry& entry(int32_t i) { return entries_[static_cast<size_t>(i)]; }

  const int32_t block_tokens_;
  absl::flat_hash_map<Hash128, Holders> nodes_;  // never iterated
  std::vector<Entry> entries_;
  std::vector<int32_t> free_;
  std::vector<Rings> rings_;  // ascending worker
  int64_t size_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_PREFIX_TREE_H_
