// Placement by latency targets. For every request the TTFT and TPOT that each worker would give it are
// predicted (predict/latency_predictor.h), and of the workers that meet both targets, less `margin`, the
// cheapest takes it. All in milliseconds:
//
//   cost = ttft + o tpot                                     until its own last token, of o expected ones,
//        + b (prompt + n o (per_seq + per_kv (tokens + o/2)))   and by which the b samples there end later,
//
// its prompt and n samples being in their way. Where nobody meets the targets, in this order:
//
//   an idle worker    takes it if nobody else would make it less late, or else it were refused
//   priority < 0      refused, with the predicted wait; not one that a worker had before
//   in time           some worker, its queue empty, could still give a first token in time: it waits
//   late              placed where it costs least (ms: ttft beyond its target + o (tpot beyond its) + what
//                     those there pay, as above). While that worker has no room it waits for it, rather than
//                     take one that has room and lacks its prefix, and counts as there for those behind it;
//                     `wait_ms` beyond its ttft target it goes there all the same
//
// Without a ttft target wait_ms after its arrival stands for it. A request without targets goes to the
// fastest of the workers with room, the one with the least ttft + o tpot, and waits while there is none: it
// is not to fill the queues that others' targets depend on. A worker has room while a slot is free and fewer
// than two passes of prompt tokens are queued: it never stands still for what waits here.
//
// Higher priority goes first, then the tenant that was served the fewest tokens lately (tenant_shares.h),
// then the older one: this decides only where several wait, in a cluster that is saturated. Of equal costs
// fewer tokens, lower id.
//
// A call weighs those that came since the last one and the first 64 of the others: with more that nobody
// could take yet, the rest waits behind them. Known prefixes are those that workers tell, or that were sent
// before (prefix_tree.h). O(waiting log waiting + those weighed * workers) and the blocks of new prompts;
// memory is kept between calls.
#ifndef ORRERY_ROUTER_POLICY_SLO_H_
#define ORRERY_ROUTER_POLICY_SLO_H_

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "router/policy/prefix_tree.h"
#include "router/policy/route_policy.h"
#include "router/policy/tenant_shares.h"
#include "router/predict/latency_predictor.h"
#include "scheduler/base/options.h"

namespace orrery {

struct SloOptions {
  double margin = 0.1;
  double wait_ms = 5000;
  double fair_ms = 10'000;
  int32_t block = 16;
  int32_t blocks = 1 << 20;
};

class SloPolicy final : public RoutePolicy {
 public:
  static absl::Span<const OptionField<SloOptions>> Fields();
  explicit SloPolicy(const SloOptions& options);

  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
              Assignment* assignment) override;
  void OnWorkerState(const WorkerLoad& load, int64_t applied_tokens) override {
    predictor_.OnWorkerState(load, applied_tokens);
  }
  void OnFirstToken(RequestId request, Time now) override { predictor_.OnFirstToken(request, now); }
  void OnFinished(int32_t output_tokens) override { predictor_.OnFinished(output_tokens); }
  Time NextWake() const override { return wake_; }
  const PredictionErrors* prediction_errors() const override { return &predictor_.errors(); }
  PrefixTree* prefixes() override { return &tree_; }

 private:
  struct Turn {
    int32_t priority = 0;
    uint32_t tenant = 0;
    uint32_t at = 0;  // in `waiting`
  };
  // The turns [begin, end) of one tenant and priority.
  struct Line {
    double served = 0;
    size_t begin = 0, end = 0;
  };
  // A worker for a request.
  struct Choice {
    size_t at = 0;  // in loads_
    double ms = 0;  // what it is chosen for, less is better
    Latency latency{};
  };
  // What the workers could do for a request; kNobody where none can.
  struct Verdict {
    Choice cheapest{kNobody};    // that meets the targets
    Choice least_late{kNobody};  // of all, and of what it costs others
    Choice idle{kNobody};        // least late of the idle ones
    Choice fastest_with_room{kNobody};
    Choice soonest{kNobody};   // least ttft
    double least_bare_ms = 0;  // TTFT if its queue were empty
  };
  static constexpr size_t kNobody = ~size_t{0};
  static constexpr size_t kMostWeighedAgain = 64;  // of one call

  void ReadTurns(absl::Span<const Waiting> waiting);
  void TakeTurns(absl::Span<const Waiting> waiting, size_t begin, size_t end, Time now,
                 Assignment* assignment);
  void Decide(const Waiting& request, Time now, Assignment* assignment);
  Verdict Weigh(const Waiting& request, absl::Span<const Hash128> names, Time now) const;
  void WeighWorker(const Waiting& request, absl::Span<const Hash128> names, size_t at, Time now,
                   Verdict* verdict) const;
  void Place(const Waiting& request, const Choice& choice, absl::Span<const Hash128> names, Time now,
             Assignment* assignment);
  // From here on in this call the request is one of the worker's.
  void Count(const Waiting& request, const Choice& choice);
  void WakeAt(Time time, Time now);
  bool IsNew(const Waiting& request) const;  // not weighed before
  const std::vector<Hash128>& NamesOf(const Waiting& request);
  // Of those that no longer wait, when they are many.
  void ForgetNames(absl::Span<const Waiting> waiting);
  bool Better(const Choice& a, const Choice& b) const;

  const SloOptions options_;
  LatencyPredictor predictor_;
  TenantShares shares_;
  PrefixTree tree_;
  uint64_t hash_key_ = 0;  // of the view
  // Of those that wait and were weighed, for which they are worked out once.
  absl::flat_hash_map<RequestId, std::vector<Hash128>> names_;
  Time last_;  // call
  Time wake_ = Time::Never();

  // Of this call.
  std::vector<WorkerLoad> loads_;  // with what it has placed
  std::vector<Turn> turns_;
  std::vector<Line> lines_;
  int64_t num_with_room_ = 0;
  size_t weighed_ = 0, weighed_again_ = 0;
  double placed_ms_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_SLO_H_
