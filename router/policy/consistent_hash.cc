#include "router/policy/consistent_hash.h"

#include <algorithm>

#include "router/policy/rendezvous.h"

namespace orrery {

absl::Span<const OptionField<ConsistentHashOptions>> ConsistentHashPolicy::Fields() {
  static constexpr OptionField<ConsistentHashOptions> kFields[] = {
      {"skew", &ConsistentHashOptions::skew, 1, 1e6,
       "times the mean of samples in flight above which a worker's keys go to the next"},
  };
  return kFields;
}

void ConsistentHashPolicy::Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time,
                                  Assignment* assignment) {
  int64_t in_flight = 0, accepting = 0, away = 0;
  candidates_.Begin(cluster.workers, [&](const WorkerLoad& worker) {
    accepting += worker.accepts;
    in_flight += worker.accepts ? worker.num_bound : 0;
    return worker.num_bound;
  });
  for (const Waiting& request : waiting) {
    const auto workers = candidates_.For(request);
    if (workers.empty()) continue;
    uint32_t at = candidates_.Least();
    if (request.routing_key != 0) {
      const double bound = options_.skew * static_cast<double>(in_flight) / static_cast<double>(accepting);
      uint32_t own = workers[0];
      uint64_t own_weight = 0, best_weight = 0;
      bool any_below = false;
      for (const uint32_t worker : workers) {
        const uint64_t weight = RendezvousWeight(request.routing_key, candidates_.worker(worker).worker, 0);
        if (weight > own_weight) {
          own = worker;
          own_weight = weight;
        }
        const bool below = static_cast<double>(candidates_.load(worker)) <= bound;
        if (below && (weight > best_weight || !any_below)) {
          at = worker;
          best_weight = weight;
          any_below = true;
        }
      }
      if (!any_below) at = own;
      away += at != own;
    }
    in_flight += request.num_samples;
    candidates_.Place(request, at, request.num_samples, assignment);
  }
  assignment->why = {.policy = "consistent-hash",
                     .objective = "requests away from the worker of their key",
                     .value = static_cast<double>(away),
                     .bound = 0,
                     .work = static_cast<int64_t>(waiting.size() * cluster.workers.size())};
}

}  // namespace orrery
