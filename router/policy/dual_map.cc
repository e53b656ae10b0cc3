#include "router/policy/dual_map.h"

#include <algorithm>
#include <limits>

#include "router/policy/rendezvous.h"

namespace orrery {
namespace {

constexpr uint32_t kNoWorker = std::numeric_limits<uint32_t>::max();

}  // namespace

absl::Span<const OptionField<DualMapOptions>> DualMapPolicy::Fields() {
  static constexpr OptionField<DualMapOptions> kFields[] = {
      {"block", &DualMapOptions::block, 1, 1 << 20, "tokens of a block"},
      {"first", &DualMapOptions::first, 1, 1 << 16, "blocks of the shallowest key"},
      {"window", &DualMapOptions::window, 1, 1 << 20, "requests over which a prefix counts as hot"},
      {"hot", &DualMapOptions::hot, 0, 1e6, "times 1/workers: share of requests above which it is"},
      {"backlog", &DualMapOptions::backlog, 0, 2147483647,
       "prompt tokens above which a worker is overloaded"},
      {"blocks", &DualMapOptions::blocks, 1, 1 << 26, "remembered, of all workers together"},
  };
  return kFields;
}

void DualMapPolicy::Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time,
                           Assignment* assignment) {
  tree_.Keep(cluster.workers);
  candidates_.Begin(cluster.workers, [](const WorkerLoad& worker) {
    return worker.waiting_tokens + worker.sent_tokens + worker.prompt_left;
  });
  int64_t longest = 0, placed = 0, work = 0;
  for (const Waiting& request : waiting) {
    const auto workers = candidates_.For(request);
    if (workers.empty()) continue;
    NameBlocks(request, cluster.hash_key, options_.block, &names_);
    const uint32_t at = Choose(request, workers);
    const WorkerLoad& worker = candidates_.worker(at);
    candidates_.Place(request, at, request.prompt_tokens - Cached(at), assignment);
    longest = std::max(longest, candidates_.load(at));
    tree_.Insert(names_, worker.worker,
                 tree_.Room(worker, names_, placed, options_.blocks, cluster.workers.size()));
    placed += request.prompt_tokens;
    work += static_cast<int64_t>(names_.size());
  }
  assignment->why = {.policy = "dual-map",
                     .objective = "prompt tokens to compute on the worker with most placed on",
                     .value = static_cast<double>(longest),
                     .work = work + static_cast<int64_t>(waiting.size() * cluster.workers.size())};
}

uint32_t DualMapPolicy::Choose(const Waiting& request, absl::Span<const uint32_t> workers) {
  const Keys& keys = Remember();
  if (keys.count == 0 || workers.size() == 1) return LeastBacklog(request, workers);
  const uint64_t key = KeyOf(keys, workers.size());
  const uint32_t one = First(key, workers, 1, kNoWorker), two = First(key, workers, 2, one);
  const uint32_t pair[] = {one, two};
  const int64_t cached[] = {Cached(pair[0]), Cached(pair[1])};
  const uint32_t light = LeastBacklog(request, pair);
  const uint32_t warm = cached[0] == cached[1] ? light : pair[cached[1] > cached[0]];
  if (Backlog(request, warm) <= options_.backlog) return warm;
  return Backlog(request, light) <= options_.backlog ? light : LeastBacklog(request, workers);
}

const DualMapPolicy::Keys& DualMapPolicy::Remember() {
  if (window_.size() < static_cast<size_t>(options_.window)) {
    next_ = window_.size();
    window_.emplace_back();
  } else {
    next_ = next_ + 1 < window_.size() ? next_ + 1 : 0;
  }
  Keys& keys = window_[next_];
  for (size_t i = 0; i < keys.count; ++i) {
    const auto seen = seen_.find(keys.of_level[i]);
    if (--seen->second == 0) seen_.erase(seen);
  }
  keys.count = 0;
  for (size_t blocks = static_cast<size_t>(options_.first); keys.count < kLevels && blocks <= names_.size();
       blocks *= 2) {
    keys.of_level[keys.count++] = names_[blocks - 1].low;
    ++seen_[names_[blocks - 1].low];
  }
  return keys;
}

uint64_t DualMapPolicy::KeyOf(const Keys& keys, size_t num_workers) const {
  const double share = static_cast<double>(window_.size()) / static_cast<double>(num_workers);
  const double hot = options_.hot * std::max(1.0, share);
  for (size_t i = 0; i + 1 < keys.count; ++i) {
    if (seen_.at(keys.of_level[i]) <= hot) return keys.of_level[i];
  }
  return keys.of_level[keys.count - 1];
}

uint32_t DualMapPolicy::First(uint64_t key, absl::Span<const uint32_t> workers, uint64_t seed,
                              uint32_t except) const {
  uint32_t best = kNoWorker;
  uint64_t best_weight = 0;
  for (const uint32_t at : workers) {
    const uint64_t weight = RendezvousWeight(key, candidates_.worker(at).worker, seed);
    if (at == except || (best != kNoWorker && weight <= best_weight)) continue;
    best = at;
    best_weight = weight;
  }
  return best;
}

int64_t DualMapPolicy::Cached(uint32_t at) const {
  return options_.block * static_cast<int64_t>(tree_.Matched(names_, candidates_.worker(at).worker));
}

int64_t DualMapPolicy::Backlog(const Waiting& request, uint32_t at) const {
  return candidates_.load(at) + request.prompt_tokens - Cached(at);
}

uint32_t DualMapPolicy::LeastBacklog(const Waiting& request, absl::Span<const uint32_t> workers) const {
  uint32_t best = workers[0];
  int64_t least = Backlog(request, best);
  for (const uint32_t at : workers.subspan(1)) {
    const int64_t backlog = Backlog(request, at);
    if (backlog >= least) continue;
    best = at;
    least = backlog;
  }
  return best;
}

}  // namespace orrery
