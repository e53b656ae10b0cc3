// Staggered batch scheduling, SBS (arXiv:2512.16134). A worker takes prompts only between two passes, so one
// that is sent at once waits half a pass on average and cannot be placed anew. Here the router keeps prompts
// and releases them in batches, to one instance (`ranks` workers that step together) after the other.
//
//   When     all ranks of an instance are idle or have just ended a pass; or the timer has run out, which is
//            set to I = (T + net) / instances after every release, T the moving average of measured passes:
//            then the instance that should end first; or the prompts kept fill the chunks of an instance. A
//            rank that says nothing for kLostPasses T is taken to be idle.
//   Where    water-filling: those left over from earlier releases first, then new ones, large before small,
//            each to the rank with most capacity left, cap = chunk - prompt tokens it has not computed; none
//            is released where that is not above -overdraft.
//   Decode   with `prefill` > 0 that many workers (lowest ids) compute prompts and the others decode. Ranks
//            whose KV is above Q3 + iqr (Q3 - Q1) are left out (from kFewestForQuartiles ranks on); of the
//            others the one with the least (decodes, KV tokens), long requests first.
//
// Ours, not the paper's: who has waited for `age_ms` goes where most capacity is, also beyond it (the paper
// refuses after some rounds; here admission does); a step of several times T counts as kLongestPass T; of
// ranks with equal capacity the one that holds fewer tokens, then the lower id. Just ended is a pass whose
// snapshot is younger than net + T / kFreshPart. O(n log n + n ranks) for each release of n prompts.
#ifndef ORRERY_ROUTER_POLICY_STAGGERED_H_
#define ORRERY_ROUTER_POLICY_STAGGERED_H_

#include <algorithm>
#include <cstddef>
#include <vector>

#include "router/policy/route_policy.h"
#include "scheduler/base/options.h"

namespace orrery {

struct StaggeredOptions {
  int32_t chunk = 2048;
  int32_t ranks = 0;
  int32_t prefill = 0;
  int32_t overdraft = 0;
  double net_ms = 0;
  double age_ms = 1000;
  double iqr = 1.5;
};

class StaggeredPolicy final : public RoutePolicy {
 public:
  static absl::Span<const OptionField<StaggeredOptions>> Fields();
  explicit StaggeredPolicy(const StaggeredOptions& options) : options_(options) {}

  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
              Assignment* assignment) override;
  Time NextWake() const override { return wake_; }
  RouteNeeds needs() const override { return {.kv_transfer = options_.prefill > 0}; }

 private:
  // An accepting worker that computes prompts.
  struct Rank {
    const WorkerLoad* load = nullptr;  // of this call
    WorkerId worker{};
    Time seen{}, released{};  // its last pass that was measured; its last release
    int64_t capacity = 0;     // prompt tokens
    int64_t tokens = 0;       // all it holds and was given
    bool ready = false;       // for a release
  };
  struct DecodeRank {
    const WorkerLoad* load = nullptr;
    int64_t samples = 0, kv_tokens = 0;
  };
  struct Prompt {
    const Waiting* request = nullptr;
    bool left_over = false, placed = false;
  };

  void ReadWorkers(const ClusterView& cluster, Time now);
  void Measure(const WorkerLoad& load, Rank* rank);
  void ReadPrompts(absl::Span<const Waiting> waiting);
  void ReleaseAged(Time now, Assignment* assignment);
  void ReleaseInstances(Time now, Assignment* assignment);
  // Into ready_, those with most capacity first, of equals the one that got its last release first.
  void FindReady();
  // The instance that should end its pass first, of those with capacity; the number of instances: none has.
  size_t NextInstance() const;
  void Release(size_t instance, Time now, Assignment* assignment);
  void Place(Prompt* prompt, Rank* rank, Assignment* assignment);
  Rank* MostCapacity(const Waiting& request, absl::Span<Rank> ranks) const;
  void SetWake(Time now);

  void PlaceDecodes(absl::Span<const Waiting> between, Assignment* assignment);
  const WorkerLoad* DecodeRankFor(const Waiting& request);

  // The last one may be smaller.
  absl::Span<Rank> Instance(size_t i) { return absl::MakeSpan(ranks_).subspan(i * width(), width()); }
  size_t width() const {
    return options_.ranks > 0 ? static_cast<size_t>(options_.ranks) : std::max<size_t>(1, ranks_.size());
  }
  Duration net() const { return Duration::Seconds(options_.net_ms * 1e-3); }
  size_t num_instances() const { return (ranks_.size() + width() - 1) / width(); }
  bool apart() const { return !decode_.empty(); }

  const StaggeredOptions options_;
  Duration pass_{};        // T; 0: none was measured
  Time round_{}, tick_{};  // the last release; when the timer runs out
  Time wake_ = Time::Never();
  int64_t kept_tokens_ = 0;  // of prompts that are kept
  int64_t fullest_ = 0;      // prompt tokens of the fullest rank placed on, this call

  std::vector<Rank> ranks_, former_ranks_;  // ascending worker
  std::vector<DecodeRank> decode_;          // of this call
  std::vector<Prompt> prompts_;             // likewise, in the order of release
  std::vector<const Waiting*> long_first_;  // likewise
  std::vector<int64_t> sorted_;             // likewise
  std::vector<size_t> ready_;               // likewise: instances
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_STAGGERED_H_
