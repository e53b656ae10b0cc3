// Which worker gets which waiting request. A policy sees the pool and what is known of the workers, returns
// assignments and changes nothing; what it leaves out stays pooled until the next call. Same view, same
// policy state: same answer. No clock; chance only from a seed that is an option; ties go to the lower worker
// id.
#ifndef ORRERY_ROUTER_POLICY_ROUTE_POLICY_H_
#define ORRERY_ROUTER_POLICY_ROUTE_POLICY_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "router/policy/route_plan.h"
#include "router/predict/prediction_error.h"
#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/types/decision_record.h"
#include "scheduler/types/request.h"
#include "scheduler/types/worker_state.h"

namespace orrery {

// A worker as the router knows it: its last snapshot, and what was sent since on top.
struct WorkerLoad {
  WorkerId worker{};
  bool accepts = false;        // up and not draining; assigning to another is a mistake that RouterCore drops
  Time state_at{};             // of the snapshot
  Time step_at{};              // end of its last step
  int64_t kv_tokens = 0;       // resident
  int64_t waiting_tokens = 0;  // in its queue, not yet computed
  int64_t sent_tokens = 0;     // sent to it and not yet in a snapshot
  int64_t prompt_left = 0;     // of the prompts it has begun: tokens not yet computed
  int32_t num_running = 0, num_waiting = 0, num_sent = 0;  // samples
  int32_t num_bound = 0;     // samples sent to it that are not over and have not left it; exact
  int32_t num_prefills = 0;  // of those, there for their prefill alone
  int32_t free_slots = 0;    // by the snapshot
  int64_t kv_capacity_tokens = 0;
  int32_t max_context = 0;
  int32_t max_step_tokens = 2048;
  int64_t step = 0;             // finished by this incarnation
  Duration step_time{};         // of its last step
  bool tells_prefixes = false;  // RoutePolicy::prefixes() is told what it has cached

  // Everything it holds or will have to hold.
  int64_t load_tokens() const { return kv_tokens + waiting_tokens + sent_tokens; }
};

struct Waiting;
class PrefixTree;

// Of a worker's tokens, those of the samples that are expected to have ended 1, 2... steps from its snapshot.
struct Leaving {
  std::array<int64_t, kLookaheadSteps> tokens{};
};

struct ClusterView {
  absl::Span<const WorkerLoad> workers;  // ascending worker id
  // Requests between two workers, in the order in which their prefills ended. What a policy does not place
  // leaves the worker it is on and stays here.
  absl::Span<const Waiting> between{};
  absl::Span<const int32_t> prefills_of_class{};  // samples there for their prefill alone; shorter: 0
  absl::Span<const Leaving> leaving{};            // as `workers`; empty: nobody is known to leave
  uint64_t hash_key = 0;                          // names the blocks of prompts
};

// A pooled request; its samples go to one worker, since they share the prompt's KV.
struct Waiting {
  RequestId request{};
  Time arrival{};
  int32_t prompt_tokens = 0;   // what the worker has to compute; emitted tokens of a replay included
  int32_t max_new_tokens = 0;  // per sample
  int32_t num_samples = 1;
  Slo slo{};
  Time deadline = Time::Never();
  int32_t priority = 0;
  uint32_t tenant = 0;
  uint32_t traffic_class = 0;
  // Of a pooled request.
  bool replayed = false;     // a worker had it before: it cannot be refused any more
  uint64_t routing_key = 0;  // Submit::routing_key
  uint64_t cache_salt = 0;   // prefixes are alike only between equal salts
  // Of the prompt, without what was emitted before a replay; for the call. Empty where nobody knows them.
  absl::Span<const TokenId> prompt_ids{};
  // Of a request between two workers: where its prefill ran, and whether it still runs there. Placed there
  // again while it does, it goes on as if nothing had been asked.
  WorkerId from{};
  bool on_worker = false;
};

// An empty worker could serve it.
inline bool CanRun(const Waiting& request, const WorkerLoad& worker) {
  const int64_t tokens = int64_t{request.prompt_tokens} + request.max_new_tokens;
  return tokens <= worker.max_context && tokens - 1 <= worker.kv_capacity_tokens;
}

struct Placement {
  RequestId request{};
  WorkerId worker{};
  // Of a pooled request: the worker computes the prompt and the first token; then the request comes back as
  // one of ClusterView::between, and goes on wherever the policy then says, with its KV.
  bool prefill_only = false;
};

// A pooled request that is shed: its client learns which target would be missed, and by how much.
struct Shed {
  RequestId request{};
  bool tpot = false;  // the target; else ttft
  Duration target{}, predicted{};
  Duration wait{};  // until its first token, as predicted
};

struct Assignment {
  std::vector<Placement> placements;
  std::vector<Shed> shed;
  DecisionRecord why;
  void Clear() {
    placements.clear();
    shed.clear();
    why = {};
  }
};

// What a policy cannot do without.
struct RouteNeeds {
  bool plan = false;         // places nothing before OnPlanReady
  bool kv_transfer = false;  // uses Placement::prefill_only
  int32_t lookahead = 0;     // steps ahead for which it asks who will have ended; WorkerOptions::lookahead
};

class RoutePolicy {
 public:
  virtual ~RoutePolicy() = default;
  // Fills an empty *assignment. `waiting` is in arrival order.
  virtual void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
                      Assignment* assignment) = 0;
  // The latest plan; default: none is used.
  virtual void OnPlanReady(const RoutePlan&) {}
  // A snapshot came: the worker after it, and the prompt tokens sent that it is the first to cover.
  virtual void OnWorkerState(const WorkerLoad&, int64_t /*applied_tokens*/) {}
  virtual void OnFirstToken(RequestId, Time /*now*/) {}
  // Which prefixes the workers have, by blocks of so many tokens. RouterCore keeps it right for workers that
  // tell what they cache. Null: the policy does not ask.
  virtual PrefixTree* prefixes() { return nullptr; }
  // A sample ended by itself after so many tokens.
  virtual void OnFinished(int32_t /*output_tokens*/) {}
  // How good its predictions of latencies were; null: it makes none.
  virtual const PredictionErrors* prediction_errors() const { return nullptr; }
  // When Assign wants to be called again if nothing happens before; later than its last call.
  virtual Time NextWake() const { return Time::Never(); }
  virtual RouteNeeds needs() const { return {}; }
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_ROUTE_POLICY_H_
