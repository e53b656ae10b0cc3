#include "router/policy/random.h"

namespace orrery {

absl::Span<const OptionField<RandomRouteOptions>> RandomRoutePolicy::Fields() {
  static constexpr OptionField<RandomRouteOptions> kFields[] = {
      {"seed", &RandomRouteOptions::seed, 0, 2147483647, "of the draws"},
  };
  return kFields;
}

void RandomRoutePolicy::Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time,
                               Assignment* assignment) {
  candidates_.Begin(cluster.workers, [](const WorkerLoad&) { return 0; });
  for (const Waiting& request : waiting) {
    const auto workers = candidates_.For(request);
    if (!workers.empty()) candidates_.Place(request, workers[random_.Below(workers.size())], 0, assignment);
  }
  assignment->why = {.policy = "random",
                     .objective = "requests without a worker",
                     .value = static_cast<double>(waiting.size() - assignment->placements.size()),
                     .work = static_cast<int64_t>(waiting.size() * cluster.workers.size())};
}

}  // namespace orrery
