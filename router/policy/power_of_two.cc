#include "router/policy/power_of_two.h"

#include <algorithm>

namespace orrery {

absl::Span<const OptionField<PowerOfTwoOptions>> PowerOfTwoPolicy::Fields() {
  static constexpr OptionField<PowerOfTwoOptions> kFields[] = {
      {"seed", &PowerOfTwoOptions::seed, 0, 2147483647, "of the draws"},
  };
  return kFields;
}

void PowerOfTwoPolicy::Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time,
                              Assignment* assignment) {
  candidates_.Begin(cluster.workers, [](const WorkerLoad& worker) { return worker.load_tokens(); });
  int64_t heaviest = 0;
  for (const Waiting& request : waiting) {
    const auto workers = candidates_.For(request);
    if (workers.empty()) continue;
    size_t first = random_.Below(workers.size()), second = first;
    if (workers.size() > 1) {
      second = random_.Below(workers.size() - 1);
      second += second >= first;
    }
    const uint32_t a = workers[std::min(first, second)], b = workers[std::max(first, second)];
    const uint32_t at = candidates_.load(b) < candidates_.load(a) ? b : a;
    // Samples share the prompt.
    candidates_.Place(request, at, request.prompt_tokens, assignment);
    heaviest = std::max(heaviest, candidates_.load(at));
  }
  assignment->why = {.policy = "power-of-two",
                     .objective = "tokens of the fullest worker placed on",
                     .value = static_cast<double>(heaviest),
                     .work = static_cast<int64_t>(waiting.size() * cluster.workers.size())};
}

}  // namespace orrery
