// Gate-and-Route, arXiv:2602.02987: who is prefilled where by the fluid program of planning/mixed_pools.h,
// and who decodes where by a fixed order. Of n workers that accept, the M = ceil(n sum x*) of lowest id are
// mixed (one prefill beside at most B - 1 decodes), the others solo (at most B decodes, no prefill).
//
//   Gate     a mixed worker's prefill goes to the class with a prompt waiting whose (X_i - n x_i*) / x_i* is
//            least, X_i its prefills in service; equal ones: most Q_i - n qp_i* waiting; then the lower
//            class. FCFS inside a class; a prefill that runs is never stopped. Where the plan charges
//            separately the largest D_i / P_i comes first (Prioritize-and-Route).
//   Router   a prefill that ended decodes in a free slot of a solo worker, else of a mixed one, else waits in
//            one FCFS buffer, which slots that come free serve first.
//
// Ours, not the paper's:
//   - Classes with x_i* = 0 or unknown to the plan come last, those with most waiting first; M is at least 1.
//   - The slot is on the worker with the fewest decodes (lowest id), not on a random one; among mixed workers
//     first on that of the prefill itself, where nothing moves.
//   - `pack`: a prompt may begin while what is left of the worker's others does not fill a chunk of C tokens.
//     The program's rate C / (P tau) takes full chunks for granted; a prompt alone wastes most of its last.
//   - `buffer`: a class that the plan leaves waiting for prefill (qp_i* > 0) is not let in while more than
//     n (sum qd* + buffer) wait for decode. M is rounded up and the gate never idles, so without it everybody
//     would wait, and give up, in the decode buffer, also the classes that the plan serves in full; without
//     any buffer decode slots would stand empty.
//   - `hysteresis`: M changes only when n sum x* has left (M - 1, M] by more than this many workers. A worker
//     that changes pool finishes what it has.
//   - A request that no worker's KV or context can ever hold is passed over.
//
// Needs a plan, places nothing before the first, and moves KV between workers. O(workers) for each call; one
// that finds room for a prompt O(waiting + classes for each prompt placed) more.
#ifndef ORRERY_ROUTER_POLICY_GATE_AND_ROUTE_H_
#define ORRERY_ROUTER_POLICY_GATE_AND_ROUTE_H_

#include <optional>
#include <vector>

#include "router/policy/route_policy.h"
#include "scheduler/base/options.h"

namespace orrery {

struct GateAndRouteOptions {
  bool pack = true;
  double buffer = 0.2;
  double hysteresis = 0.5;
};

class GateAndRoutePolicy final : public RoutePolicy {
 public:
  static absl::Span<const OptionField<GateAndRouteOptions>> Fields();
  explicit GateAndRoutePolicy(const GateAndRouteOptions& options) : options_(options) {}

  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
              Assignment* assignment) override;
  void OnPlanReady(const RoutePlan& plan) override { plan_ = plan; }
  RouteNeeds needs() const override { return {.plan = true, .kv_transfer = true}; }

 private:
  // A worker and what this call has given it so far.
  struct Room {
    const WorkerLoad* worker = nullptr;
    bool mixed = false;
    int32_t decodes = 0, prefills = 0;  // samples
    int64_t prompt_left = 0;
  };
  struct ClassQueue {
    std::vector<const Waiting*> prompts;  // arrival order
    size_t next = 0;
    int64_t in_service = 0;
    int64_t waiting() const { return static_cast<int64_t>(prompts.size() - next); }
  };

  void SplitPools(const ClusterView& cluster);
  int64_t Route(const ClusterView& cluster, Assignment* assignment);
  Room* DecodeSlot(const Waiting& request);
  void Gate(const ClusterView& cluster, absl::Span<const Waiting> waiting, int64_t buffered,
            Assignment* assignment);
  void FillQueues(const ClusterView& cluster, absl::Span<const Waiting> waiting);
  bool TakesPrompt(const Room& room) const;
  // The oldest prompt of the class that fits the worker is the next one; false: there is none.
  static bool BringForward(const WorkerLoad& worker, ClassQueue* queue);
  // The class to serve next on this worker; null: none is waiting or may come in.
  ClassQueue* NextClass(bool held, const WorkerLoad& worker);
  bool Before(size_t a, size_t b) const;
  double Share(size_t i) const { return i < plan_->answer.x.size() ? plan_->answer.x[i] : 0; }
  double PlannedWaiting(size_t i) const {
    return i < plan_->answer.x.size() ? plan_->answer.q_prefill[i] : 0;
  }

  const GateAndRouteOptions options_;
  std::optional<RoutePlan> plan_;
  int64_t num_mixed_ = 0;
  double num_workers_ = 0;  // that accept

  std::vector<Room> rooms_;         // of this call: those that accept, ascending id
  std::vector<ClassQueue> queues_;  // likewise, by class
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_GATE_AND_ROUTE_H_
