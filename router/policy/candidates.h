// The workers that a request could go to at once, for the policies that place on arrival: those that accept
// and could ever hold it, with the load of each as the call at hand has left it.
#ifndef ORRERY_ROUTER_POLICY_CANDIDATES_H_
#define ORRERY_ROUTER_POLICY_CANDIDATES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "router/policy/route_policy.h"

namespace orrery {

// Workers are named by their place in the view. Keeps its memory; each function is O(workers).
class Candidates {
 public:
  // A new call; load_of(worker) is what a worker carries before it.
  template <typename LoadOf>
  void Begin(absl::Span<const WorkerLoad> workers, LoadOf load_of) {
    workers_ = workers;
    loads_.clear();
    for (const WorkerLoad& worker : workers) loads_.push_back(load_of(worker));
  }
  // Ascending; empty: the request stays in the pool.
  absl::Span<const uint32_t> For(const Waiting& request) {
    found_.clear();
    for (uint32_t at = 0; at < workers_.size(); ++at) {
      if (workers_[at].accepts && CanRun(request, workers_[at])) found_.push_back(at);
    }
    return found_;
  }
  // Of those last found: the one that carries least. REQUIRES: there is one.
  uint32_t Least() const {
    return *std::min_element(found_.begin(), found_.end(),
                             [this](uint32_t a, uint32_t b) { return loads_[a] < loads_[b]; });
  }
  void Place(const Waiting& request, uint32_t at, int64_t load, Assignment* assignment) {
    loads_[at] += load;
    assignment->placements.push_back({request.request, workers_[at].worker});
  }

  const WorkerLoad& worker(uint32_t at) const { return workers_[at]; }
  int64_t load(uint32_t at) const { return loads_[at]; }

 private:
  absl::Span<const WorkerLoad> workers_;
  std::vector<int64_t> loads_;   // [workers_]
  std::vector<uint32_t> found_;  // of the last request
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_CANDIDATES_H_
