#include "router/policy/prefix_tree.h"

#include <algorithm>

#include "scheduler/kv/block_hash.h"

namespace orrery {
namespace {

// The names stay inside the router. Who aims at a collision wins nothing but a wrong guess; salts are keyed
// hashes already.
constexpr uint64_t kHashKey = 0;

template <typename Holders>
auto FindHolder(Holders& holders, WorkerId worker) {
  return std::lower_bound(holders.begin(), holders.end(), worker,
                          [](const PrefixTree::Holder& holder, WorkerId id) { return holder.worker < id; });
}

// The first of `names` of which `has` is not true; REQUIRES: none after it is.
template <typename Has>
size_t CountFirst(absl::Span<const Hash128> names, Has has) {
  return static_cast<size_t>(std::partition_point(names.begin(), names.end(), has) - names.begin());
}

}  // namespace

void NameBlocks(const Waiting& request, int32_t block_tokens, std::vector<Hash128>* names) {
  names->clear();
  const TokenList tokens{request.prompt_ids, {}};
  const int32_t blocks = tokens.size() / block_tokens;
  Hash128 name = ChainRoot(kHashKey, request.cache_salt);
  for (int32_t i = 0; i < blocks; ++i) {
    name = BlockHash(kHashKey, name, tokens, i, block_tokens);
    names->push_back(name);
  }
}

void PrefixTree::Keep(absl::Span<const WorkerLoad> workers) {
  size_t at = 0;
  const auto gone = [&](Ring& ring) {
    while (at < workers.size() && workers[at].worker < ring.worker) ++at;
    if (at < workers.size() && workers[at].worker == ring.worker) return false;
    while (ring.size > 0) Evict(&ring);
    free_.push_back(ring.head);
    return true;
  };
  rings_.erase(std::remove_if(rings_.begin(), rings_.end(), gone), rings_.end());
}

void PrefixTree::Insert(absl::Span<const Hash128> names, WorkerId worker, int64_t most) {
  Ring* ring = RingOf(worker);
  if (static_cast<int64_t>(names.size()) > most)
    names = names.first(static_cast<size_t>(std::max<int64_t>(0, most)));
  for (size_t i = names.size(); i-- > 0;) {
    Holders& holders = nodes_[names[i]];
    const auto found = FindHolder(holders, worker);
    int32_t used = 0;
    if (found != holders.end() && found->worker == worker) {
      used = found->entry;
      Unlink(used);
    } else {
      used = NewEntry();
      entry(used).name = names[i];
      holders.insert(found, {worker, used});
      ++ring->size;
      ++size_;
    }
    LinkFirst(*ring, used);
  }
  while (ring->size > most) Evict(ring);
}

size_t PrefixTree::Matched(absl::Span<const Hash128> names) const {
  return CountFirst(names, [this](const Hash128& name) { return nodes_.contains(name); });
}

size_t PrefixTree::Matched(absl::Span<const Hash128> names, WorkerId worker) const {
  return CountFirst(names, [&](const Hash128& name) {
    const auto node = nodes_.find(name);
    if (node == nodes_.end()) return false;
    const auto found = FindHolder(node->second, worker);
    return found != node->second.end() && found->worker == worker;
  });
}

absl::Span<const PrefixTree::Holder> PrefixTree::HoldersOf(const Hash128& name) const {
  const auto node = nodes_.find(name);
  return node == nodes_.end() ? absl::Span<const Holder>() : node->second;
}

PrefixTree::Ring* PrefixTree::RingOf(WorkerId worker) {
  auto found = std::lower_bound(rings_.begin(), rings_.end(), worker,
                                [](const Ring& ring, WorkerId id) { return ring.worker < id; });
  if (found == rings_.end() || found->worker != worker) {
    const int32_t head = NewEntry();
    entry(head).before = entry(head).after = head;
    found = rings_.insert(found, {.worker = worker, .head = head});
  }
  return &*found;
}

void PrefixTree::Evict(Ring* ring) {
  const int32_t last = entry(ring->head).before;
  const auto node = nodes_.find(entry(last).name);
  node->second.erase(FindHolder(node->second, ring->worker));
  if (node->second.empty()) nodes_.erase(node);
  Unlink(last);
  free_.push_back(last);
  --ring->size;
  --size_;
}

int32_t PrefixTree::NewEntry() {
  if (free_.empty()) {
    entries_.emplace_back();
    return static_cast<int32_t>(entries_.size()) - 1;
  }
  const int32_t entry = free_.back();
  free_.pop_back();
  return entry;
}

void PrefixTree::LinkFirst(const Ring& ring, int32_t i) {
  Entry& head = entry(ring.head);
  entry(i).before = ring.head;
  entry(i).after = head.after;
  entry(head.after).before = i;
  head.after = i;
}

void PrefixTree::Unlink(int32_t i) {
  entry(entry(i).before).after = entry(i).after;
  entry(entry(i).after).before = entry(i).before;
}

}  // namespace orrery
