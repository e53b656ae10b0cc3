#include "router/policy/fcfs_pool.h"

namespace orrery {

void FcfsPoolPolicy::Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time,
                            Assignment* assignment) {
  rooms_.clear();
  for (const WorkerLoad& worker : cluster.workers) {
    // Those on their way and those that wait there will take slots.
    const int32_t slots = worker.free_slots - worker.num_sent - worker.num_waiting;
    if (!worker.accepts || slots <= 0) continue;
    rooms_.push_back({&worker, slots, worker.kv_capacity_tokens - worker.load_tokens()});
  }
  auto work = static_cast<int64_t>(rooms_.size());
  size_t first = 0;  // workers before it have no slot left
  for (const Waiting& request : waiting) {
    while (first < rooms_.size() && rooms_[first].slots <= 0) ++first;
    size_t at = first;
    for (; at < rooms_.size(); ++at, ++work) {
      const Room& room = rooms_[at];
      const WorkerLoad& worker = *room.worker;
      // An empty worker takes whatever can run at all.
      const bool fits =
          room.kv_tokens >= request.prompt_tokens || room.kv_tokens == worker.kv_capacity_tokens;
      if (CanRun(request, worker) && fits && room.slots >= request.num_samples) break;
    }
    if (at == rooms_.size()) break;
    rooms_[at].slots -= request.num_samples;
    rooms_[at].kv_tokens -= request.prompt_tokens;
    assignment->placements.push_back({request.request, rooms_[at].worker->worker});
  }
  assignment->why = {.policy = "fcfs",
                     .objective = "requests left in the pool",
                     .value = static_cast<double>(waiting.size() - assignment->placements.size()),
                     .work = work};
}

}  // namespace orrery
