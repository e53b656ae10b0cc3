// The way between the router side of the server and one worker: submissions and cancels there, reports back.
// In one process the other end is a WorkerLoop; between processes a gRPC stream (worker_directory.h here,
// worker_service.h there). No call blocks, and any thread may call.
#ifndef ORRERY_SERVER_LINK_WORKER_LINK_H_
#define ORRERY_SERVER_LINK_WORKER_LINK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "router/worker_info.h"
#include "scheduler/cost/step_cost.h"
#include "scheduler/types/decision_record.h"
#include "scheduler/types/request.h"
#include "scheduler/types/worker_state.h"

namespace orrery {

// What one engine step was and cost, for the metrics.
struct StepStats {
  int32_t num_prefill_tokens = 0;
  int32_t num_decodes = 0;
  int32_t num_sequences = 0;
  StepShape shape;
  bool scores = false;  // prompts, which takes time that the shape does not show
  Duration engine;      // Launch, or the end of the step before when that is later, to the end of Wait
  Duration host;        // end of the previous Wait, or waking up, to the end of Launch
  Duration decision;    // of that, the policy and the bookkeeping of Plan
  Duration predicted;   // `engine` as the cost model saw it coming; zero: it did not say
  DecisionRecord why;
};

struct SampleEnd {
  SampleKey key;
  SampleReport report;
};

struct RefusedSample {
  SampleKey key;
  absl::Status why;
};

// What a worker tells after every step and after every batch of submissions and cancels.
struct WorkerReport {
  std::vector<TokenEvent> events;      // in order; at most one end per sample
  std::vector<SampleEnd> ended;        // the samples whose end is among the events
  std::vector<RefusedSample> refused;  // submissions that were not accepted
  std::vector<StepStats> steps;
  WorkerState state;
  int64_t preemptions = 0;        // since the start of the worker
  int64_t prefix_hit_tokens = 0;  // since the start of the worker
  int64_t policy_fallbacks = 0;   // since the start of the worker
  std::string engine_lost;        // why no step will ever run again; empty: it may. For the own process alone
  bool more_follow = false;       // others of the same group step come at once
};

// One step of a group.
struct GroupStep {
  Duration longest;  // of the ranks' engine times
  Duration idle;     // what the others waited for it, summed
  // G times the largest resident load of a rank, less the load of all (KV tokens; Balance-Future's
  // imbalance).
  int64_t imbalance_tokens = 0;
};

using WorkerReportSink = std::function<void(WorkerReport)>;

class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  // The answer, if any, is in a later report: token events, or a refusal.
  virtual void Submit(orrery::Submit submit) = 0;
  // Ends every sample of a request; unknown or ended ones are left alone.
  virtual void CancelRequest(RequestId request) = 0;
  virtual void CancelSample(const SampleKey& key) = 0;
  virtual void TellPrefixes() = 0;  // WorkerCore::TellPrefixes
  // The worker is of no use as it is; nothing it was given is wanted any more. It may come back as another
  // incarnation.
  virtual void Reset() = 0;
};

// A worker that is there, and the way to it.
struct AttachedWorker {
  std::shared_ptr<WorkerLink> link;
  WorkerInfo info;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_LINK_WORKER_LINK_H_
