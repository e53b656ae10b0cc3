#include "router/policy/round_robin.h"

#include <algorithm>

namespace orrery {

void RoundRobinPolicy::Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time,
                              Assignment* assignment) {
  const size_t num_workers = cluster.workers.size();
  const auto after = [&] {
    if (!started_) return size_t{0};
    const auto next = std::upper_bound(cluster.workers.begin(), cluster.workers.end(), last_,
                                       [](WorkerId id, const WorkerLoad& load) { return id < load.worker; });
    return static_cast<size_t>(next - cluster.workers.begin());
  };
  int64_t work = 0;
  size_t turn = after();
  for (const Waiting& request : waiting) {
    for (size_t tried = 0; tried < num_workers; ++tried, ++turn, ++work) {
      if (turn >= num_workers) turn = 0;
      const WorkerLoad& worker = cluster.workers[turn];
      if (!worker.accepts || !CanRun(request, worker)) continue;
      assignment->placements.push_back({request.request, worker.worker});
      last_ = worker.worker;
      started_ = true;
      ++turn;
      break;
    }
  }
  assignment->why = {.policy = "round-robin",
                     .objective = "requests without a worker",
                     .value = static_cast<double>(waiting.size() - assignment->placements.size()),
                     .work = work};
}

}  // namespace orrery
