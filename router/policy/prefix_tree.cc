#include "router/policy/prefix_tree.h"

#include <algorithm>
#include <utility>

#include "scheduler/kv/block_hash.h"

namespace orrery {
namespace {

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

void NameBlocks(const Waiting& request, uint64_t hash_key, int32_t block_tokens,
                std::vector<Hash128>* names) {
  names->clear();
  const TokenList tokens{request.prompt_ids, {}};
  const int32_t blocks = tokens.size() / block_tokens;
  Hash128 name = ChainRoot(hash_key, request.cache_salt);
  for (int32_t i = 0; i < blocks; ++i) {
    name = BlockHash(hash_key, name, tokens, i, block_tokens);
    names->push_back(name);
  }
}

void PrefixTree::Keep(absl::Span<const WorkerLoad> workers) {
  size_t at = 0;
  const auto gone = [&](Rings& rings) {
    while (at < workers.size() && workers[at].worker < rings.worker) ++at;
    if (at < workers.size() && workers[at].worker == rings.worker) return false;
    Clear(&rings);
    free_.insert(free_.end(), {rings.guessed, rings.told});
    return true;
  };
  rings_.erase(std::remove_if(rings_.begin(), rings_.end(), gone), rings_.end());
}

void PrefixTree::Insert(absl::Span<const Hash128> names, WorkerId worker, int64_t most) {
  Rings* rings = RingsOf(worker);
  if (static_cast<int64_t>(names.size()) > most)
    names = names.first(static_cast<size_t>(std::max<int64_t>(0, most)));
  for (size_t i = names.size(); i-- > 0;) {
    const int32_t used = EntryOf(names[i], rings);
    if (entry(used).told) continue;
    Unlink(used);
    LinkAfter(rings->guessed, used);
  }
  while (rings->num_guessed > most) Erase(rings, entry(rings->guessed).before);
}

int64_t PrefixTree::Room(const WorkerLoad& worker, absl::Span<const Hash128> names, int64_t placed_tokens,
                         int64_t blocks, size_t num_workers) const {
  if (worker.tells_prefixes) {
    return static_cast<int64_t>(names.size()) +
           (worker.waiting_tokens + worker.sent_tokens + worker.prompt_left + placed_tokens) / block_tokens_;
  }
  return std::min(worker.kv_capacity_tokens / block_tokens_, blocks / static_cast<int64_t>(num_workers));
}

void PrefixTree::Tell(WorkerId worker, absl::Span<const PrefixEvent> events) {
  Rings* rings = RingsOf(worker);
  for (const PrefixEvent& event : events) {
    if (event.stored) {
      SetTold(rings, EntryOf(event.name, rings));
      continue;
    }
    const auto node = nodes_.find(event.name);
    if (node == nodes_.end()) continue;
    const auto found = FindHolder(node->second, worker);
    if (found != node->second.end() && found->worker == worker) Erase(rings, found->entry);
  }
}

void PrefixTree::Forget(WorkerId worker) { Clear(RingsOf(worker)); }

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

PrefixTree::Rings* PrefixTree::RingsOf(WorkerId worker) {
  auto found = std::lower_bound(rings_.begin(), rings_.end(), worker,
                                [](const Rings& rings, WorkerId id) { return rings.worker < id; });
  if (found == rings_.end() || found->worker != worker) {
    const int32_t guessed = NewHead(), told = NewHead();
    found = rings_.insert(found, {.worker = worker, .guessed = guessed, .told = told});
  }
  return &*found;
}

int32_t PrefixTree::EntryOf(const Hash128& name, Rings* rings) {
  Holders& holders = nodes_[name];
  const auto found = FindHolder(holders, rings->worker);
  if (found != holders.end() && found->worker == rings->worker) return found->entry;
  const int32_t made = NewEntry();
  entry(made).name = name;
  entry(made).told = false;
  holders.insert(found, {rings->worker, made});
  LinkAfter(rings->guessed, made);
  ++rings->num_guessed;
  ++size_;
  return made;
}

void PrefixTree::SetTold(Rings* rings, int32_t i) {
  if (std::exchange(entry(i).told, true)) return;
  --rings->num_guessed;
  ++rings->num_told;
  Unlink(i);
  LinkAfter(rings->told, i);
}

void PrefixTree::Erase(Rings* rings, int32_t i) {
  const auto node = nodes_.find(entry(i).name);
  node->second.erase(FindHolder(node->second, rings->worker));
  if (node->second.empty()) nodes_.erase(node);
  entry(i).told ? --rings->num_told : --rings->num_guessed;
  Unlink(i);
  free_.push_back(i);
  --size_;
}

void PrefixTree::Clear(Rings* rings) {
  for (const int32_t head : {rings->guessed, rings->told}) {
    while (entry(head).after != head) Erase(rings, entry(head).after);
  }
}

int32_t PrefixTree::NewHead() {
  const int32_t head = NewEntry();
  entry(head).before = entry(head).after = head;
  return head;
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

void PrefixTree::LinkAfter(int32_t head, int32_t i) {
  const int32_t next = entry(head).after;
  entry(i).before = head;
  entry(i).after = next;
  entry(next).before = i;
  entry(head).after = i;
}

void PrefixTree::Unlink(int32_t i) {
  entry(entry(i).before).after = entry(i).after;
  entry(entry(i).after).before = entry(i).before;
}

}  // namespace orrery
