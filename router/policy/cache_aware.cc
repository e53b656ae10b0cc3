#include "router/policy/cache_aware.h"

#include <algorithm>

namespace orrery {

absl::Span<const OptionField<CacheAwareOptions>> CacheAwarePolicy::Fields() {
  static constexpr OptionField<CacheAwareOptions> kFields[] = {
      {"match", &CacheAwareOptions::match, 0, 1, "share of the prompt that a prefix must exceed to decide"},
      {"abs", &CacheAwareOptions::abs, 0, 1e9, "samples between most and fewest in flight still balanced"},
      {"rel", &CacheAwareOptions::rel, 1, 1e6, "factor between them still balanced"},
      {"block", &CacheAwareOptions::block, 1, 1 << 20, "tokens of a block"},
      {"blocks", &CacheAwareOptions::blocks, 1, 1 << 26, "remembered, of all workers together"},
  };
  return kFields;
}

void CacheAwarePolicy::Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time,
                              Assignment* assignment) {
  tree_.Keep(cluster.workers);
  candidates_.Begin(cluster.workers, [](const WorkerLoad& worker) { return worker.num_bound; });
  int64_t tokens = 0, least_tokens = 0, placed = 0, work = 0;
  for (const Waiting& request : waiting) {
    const auto workers = candidates_.For(request);
    if (workers.empty()) continue;
    NameBlocks(request, cluster.hash_key, options_.block, &names_);
    const uint32_t at = Balanced(workers) ? Choose(request, workers) : candidates_.Least();
    const WorkerLoad& worker = candidates_.worker(at);
    const auto hit = static_cast<int64_t>(tree_.Matched(names_, worker.worker));
    tokens += request.prompt_tokens - options_.block * hit;
    least_tokens += request.prompt_tokens - options_.block * static_cast<int64_t>(tree_.Matched(names_));
    tree_.Insert(names_, worker.worker,
                 tree_.Room(worker, names_, placed, options_.blocks, cluster.workers.size()));
    placed += request.prompt_tokens;
    candidates_.Place(request, at, request.num_samples, assignment);
    work += static_cast<int64_t>(names_.size());
  }
  assignment->why = {.policy = "cache-aware",
                     .objective = "prompt tokens placed without a known prefix",
                     .value = static_cast<double>(tokens),
                     .bound = static_cast<double>(least_tokens),
                     .work = work + static_cast<int64_t>(waiting.size() * cluster.workers.size())};
}

bool CacheAwarePolicy::Balanced(absl::Span<const uint32_t> workers) const {
  int64_t fewest = candidates_.load(workers[0]), most = fewest;
  for (const uint32_t at : workers) {
    fewest = std::min(fewest, candidates_.load(at));
    most = std::max(most, candidates_.load(at));
  }
  return most - fewest <= options_.abs ||
         static_cast<double>(most) <= options_.rel * static_cast<double>(fewest);
}

uint32_t CacheAwarePolicy::Choose(const Waiting& request, absl::Span<const uint32_t> workers) const {
  const double enough = options_.match * static_cast<double>(request.prompt_tokens);
  size_t depth = tree_.Matched(names_);
  // Those that have the longest may not be among `workers`.
  for (; static_cast<double>(depth) * options_.block > enough; --depth) {
    const auto holders = tree_.HoldersOf(names_[depth - 1]);
    auto holder = holders.begin();
    bool any = false;
    uint32_t best = 0;
    for (const uint32_t at : workers) {
      const WorkerId id = candidates_.worker(at).worker;
      while (holder != holders.end() && holder->worker < id) ++holder;
      if (holder == holders.end()) break;
      if (holder->worker != id || (any && candidates_.load(at) >= candidates_.load(best))) continue;
      best = at;
      any = true;
    }
    if (any) return best;
  }
  return candidates_.Least();
}

}  // namespace orrery
