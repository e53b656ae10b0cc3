// Cache-aware placement after the gateway of SGLang: a request goes where the longest prefix of its prompt
// was sent before, while the workers are balanced; else, and when the prefix is short, where the fewest
// samples are in flight. Balanced: the most and the fewest in flight differ by at most `abs`, or by at most
// the factor `rel`. Every placement is learnt, in either case.
//
// Ours: prefixes are those of token blocks (prefix_tree.h) instead of text; what a worker has it tells, and
// of those that do not, what they are taken to have is bounded by their KV as well as by their share of
// `blocks`. Of several workers with the same prefix the one with the fewest in flight gets the request, lower
// id first. Prompts whose ids nobody knows have no prefix. O(prompt + workers) for a request.
#ifndef ORRERY_ROUTER_POLICY_CACHE_AWARE_H_
#define ORRERY_ROUTER_POLICY_CACHE_AWARE_H_

#include <vector>

#include "router/policy/candidates.h"
#include "router/policy/prefix_tree.h"
#include "router/policy/route_policy.h"
#include "scheduler/base/options.h"

namespace orrery {

struct CacheAwareOptions {
  double match = 0.5;
  int32_t abs = 32;
  double rel = 1.1;
  int32_t block = 16;
  int32_t blocks = 1 << 20;
};

class CacheAwarePolicy final : public RoutePolicy {
 public:
  static absl::Span<const OptionField<CacheAwareOptions>> Fields();
  explicit CacheAwarePolicy(const CacheAwareOptions& options) : options_(options), tree_(options.block) {}

  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
              Assignment* assignment) override;
  PrefixTree* prefixes() override { return &tree_; }

 private:
  bool Balanced(absl::Span<const uint32_t> workers) const;
  // Of `workers`, one with the longest prefix that is long enough; none: the one that carries least.
  uint32_t Choose(const Waiting& request, absl::Span<const uint32_t> workers) const;

  const CacheAwareOptions options_;
  PrefixTree tree_;
  Candidates candidates_;
  std::vector<Hash128> names_;  // of the request at hand
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_CACHE_AWARE_H_
