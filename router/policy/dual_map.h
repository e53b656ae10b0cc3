// DualMap (arXiv:2602.06502): every prefix belongs to two workers, by two hashes, and the state of the two
// decides between them. Equal prefixes meet on one of them; distinct hot ones mostly have distinct pairs.
//
//   key      of the first `first`, twice, four times... as many blocks (8 levels) the shallowest that at
//            most a share `hot` / G of the last `window` requests has: a prefix that more have is told apart
//            deeper, and so spreads. When even the deepest is hot, that one.
//   pair     the first by rendezvous hashing (rendezvous.h) of the key, and the first of the rest by another.
//   backlog  prompt tokens on the worker that are not computed + those of this request it has not cached
//   choice   the one with more blocks of the prompt cached, else with less backlog, else the first; when its
//            backlog is above `backlog` tokens, of the two the one with less
//
// Ours, not the paper's: cached is what a worker tells, or what was sent to it before (prefix_tree.h); when
// both backlogs are above `backlog`, and where a prompt has no key, all workers are candidates and the least
// backlog wins; `hot` requests in the window are never too many. Not here: moving requests that wait on an
// overloaded worker to their other one. O(prompt + workers) for a request; O(workers log blocks) more where
// all are candidates.
#ifndef ORRERY_ROUTER_POLICY_DUAL_MAP_H_
#define ORRERY_ROUTER_POLICY_DUAL_MAP_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "router/policy/candidates.h"
#include "router/policy/prefix_tree.h"
#include "router/policy/route_policy.h"
#include "scheduler/base/options.h"

namespace orrery {

struct DualMapOptions {
  int32_t block = 16;
  int32_t first = 4;
  int32_t window = 1000;
  double hot = 2;
  int32_t backlog = 65536;
  int32_t blocks = 1 << 19;
};

class DualMapPolicy final : public RoutePolicy {
 public:
  static absl::Span<const OptionField<DualMapOptions>> Fields();
  explicit DualMapPolicy(const DualMapOptions& options) : options_(options), tree_(options.block) {}

  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
              Assignment* assignment) override;
  PrefixTree* prefixes() override { return &tree_; }

 private:
  static constexpr size_t kLevels = 8;
  struct Keys {
    std::array<uint64_t, kLevels> of_level;
    size_t count = 0;
  };

  // Counts the request at hand in the window; its keys.
  const Keys& Remember();
  uint64_t KeyOf(const Keys& keys, size_t num_workers) const;
  uint32_t Choose(const Waiting& request, absl::Span<const uint32_t> workers);
  // Of `workers`, the one whose weight for the key is largest, but not `except`.
  uint32_t First(uint64_t key, absl::Span<const uint32_t> workers, uint64_t seed, uint32_t except) const;
  int64_t Cached(uint32_t at) const;
  int64_t Backlog(const Waiting& request, uint32_t at) const;
  uint32_t LeastBacklog(const Waiting& request, absl::Span<const uint32_t> workers) const;

  const DualMapOptions options_;
  PrefixTree tree_;
  Candidates candidates_;                        // loads: prompt tokens to compute
  std::vector<Hash128> names_;                   // of the request at hand
  std::vector<Keys> window_;                     // grows to options_.window, then a ring
  size_t next_ = 0;                              // in the ring
  absl::flat_hash_map<uint64_t, int32_t> seen_;  // requests in the window, by key; never iterated
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_DUAL_MAP_H_
