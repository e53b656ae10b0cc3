#include "router/policy/jsq_tokens.h"

#include <algorithm>
#include <limits>

namespace orrery {
void JsqTokensPolicy::Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time,
                             Assignment* assignment) {
  added_.assign(cluster.workers.size(), 0);
  int64_t heaviest = 0, work = 0;
  for (const Waiting& request : waiting) {
    int64_t least = std::numeric_limits<int64_t>::max();
    size_t best = cluster.workers.size();
    for (size_t i = 0; i < cluster.workers.size(); ++i) {
      const WorkerLoad& worker = cluster.workers[i];
      const int64_t load = worker.load_tokens() + added_[i];
      if (worker.accepts && load < least && CanRun(request, worker)) {
        least = load;
        best = i;
      }
    }
    work += static_cast<int64_t>(cluster.workers.size());
    if (best == cluster.workers.size()) continue;
    // Samples share the prompt.
    added_[best] += request.prompt_tokens;
    heaviest = std::max(heaviest, least + request.prompt_tokens);
    assignment->placements.push_back({request.request, cluster.workers[best].worker});
  }
  assignment->why = {.policy = "jsq-tokens",
                     .objective = "tokens of the fullest worker placed on",
                     .value = static_cast<double>(heaviest),
                     .work = work};
}

}  // namespace orrery
