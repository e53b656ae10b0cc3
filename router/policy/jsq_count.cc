#include "router/policy/jsq_count.h"

#include <algorithm>

namespace orrery {

void JsqCountPolicy::Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time,
                            Assignment* assignment) {
  candidates_.Begin(cluster.workers, [](const WorkerLoad& worker) { return worker.num_bound; });
  int64_t most = 0;
  for (const Waiting& request : waiting) {
    if (candidates_.For(request).empty()) continue;
    const uint32_t at = candidates_.Least();
    candidates_.Place(request, at, request.num_samples, assignment);
    most = std::max(most, candidates_.load(at));
  }
  assignment->why = {.policy = "jsq-count",
                     .objective = "samples on the worker with most placed on",
                     .value = static_cast<double>(most),
                     .work = static_cast<int64_t>(waiting.size() * cluster.workers.size())};
}

}  // namespace orrery
