// TTFT and TPOT of every worker, learnt from the snapshots that come anyway: each tells how long a step took,
// and with the one before it what the step was made of (those that ran, their KV, the prompt tokens that left
// the backlog). A model for each worker learns from them (scheduler/cost/online_cost.h). Until the first
// kSharedSteps steps of all workers are known one model stands for all; then every worker gets its own, which
// begins as that one. Predictions are 0 while nothing is known.
//
// What snapshots cannot tell: prompt tokens that a worker finds in its cache leave the backlog like computed
// ones. A step that seems to have computed more than max_step_tokens is not learnt from.
//
// Errors are those of all workers together.
#ifndef ORRERY_ROUTER_PREDICT_LATENCY_PREDICTOR_H_
#define ORRERY_ROUTER_PREDICT_LATENCY_PREDICTOR_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "router/policy/route_policy.h"
#include "router/predict/latency.h"
#include "router/predict/prediction_error.h"
#include "scheduler/cost/online_cost.h"

namespace orrery {

class LatencyPredictor {
 public:
  static constexpr int64_t kSharedSteps = 32;

  // A snapshot: the worker after it, and the prompt tokens sent that it is the first to cover.
  void OnWorkerState(const WorkerLoad& load, int64_t applied_tokens);
  void OnFinished(int32_t output_tokens);
  // Placed, with the latency that was predicted.
  void OnPlaced(RequestId request, WorkerId worker, int32_t samples, const Latency& latency, Time now);
  void OnFirstToken(RequestId request, Time now);
  // Forgets all workers that are not among these (ascending id), and samples that are over.
  void Keep(absl::Span<const WorkerLoad> workers);

  Latency Predict(const WorkerLoad& load, const Demand& demand, Time now) const;
  LatencyModel ModelOf(WorkerId worker) const;
  // Of a sample that may make so many: by those that ended lately, or the bound while none has.
  double ExpectedOutput(int32_t max_new_tokens) const;

  const PredictionErrors& errors() const { return errors_; }

 private:
  struct Seen {
    WorkerId worker{};
    std::unique_ptr<OnlineStepCost> cost{};  // null: the shared one
    Begun begun{};
    WorkerLoad last{};     // the first snapshot after its last step; step < 0: none
    int64_t applied = 0;   // prompt tokens that came since
    int64_t computed = 0;  // of the prompt that is half computed
    double beside_ms = 0;  // of prompts in the steps of decodes, lately
  };

  // A first token that has not come yet.
  struct Pending {
    Time placed;
    double ttft_ms = 0;
  };

  Seen* Find(WorkerId worker);
  const Seen* Find(WorkerId worker) const { return const_cast<LatencyPredictor*>(this)->Find(worker); }
  Seen* FindOrAdd(WorkerId worker);
  void Learn(const WorkerLoad& load, Seen* seen);

  OnlineStepCost shared_;
  std::vector<Seen> seen_;  // ascending worker
  double mean_output_ = 0;  // of samples that ended; 0: none has
  int64_t ended_ = 0;
  absl::flat_hash_map<RequestId, Pending> pending_;  // lookups only
  PredictionErrors errors_;
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_PREDICT_LATENCY_PREDICTOR_H_
