// One worker of a simulation: a WorkerCore, and an engine that knows only how long a step takes and how many
// tokens a request makes. Since it knows who ends when, it passes the decode steps up to the next end that
// WorkerCore vouches for in O(1) each; every other step is planned and finished as it would be live.
#ifndef ORRERY_ROUTER_SIM_SIM_WORKER_H_
#define ORRERY_ROUTER_SIM_SIM_WORKER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "router/sim/live_table.h"
#include "scheduler/base/time.h"
#include "scheduler/cost/step_cost.h"
#include "scheduler/predict/oracle.h"
#include "scheduler/types/step_plan.h"
#include "scheduler/worker_factory.h"

namespace orrery::sim {

class SimWorker {
 public:
  // What an engine slot holds: everything that is read for each token.
  struct Slot {
    RequestId request{};
    int32_t output_tokens = 0;
    int32_t class_index = 0;
    Time last_token = Time::Never();
    uint32_t seed = 0;  // of its token ids; 0: they do not matter
    bool measured = false;
  };

  // A new incarnation, empty. The predictor may be an oracle. `fast_forward`: steps that are known beforehand
  // (WorkerCore::KnownSteps) are passed without planning them.
  absl::Status Start(const WorkerSpec& spec, uint64_t incarnation, bool fast_forward);
  void Stop() { core_.reset(); }
  bool up() const { return core_ != nullptr; }
  // To ask; whoever is about to tell it something calls Interrupt() first.
  WorkerCore* core() { return core_.get(); }
  const WorkerCore* core() const { return core_.get(); }
  uint64_t incarnation() const { return incarnation_; }
  // What comes next is not known any more: a known step in flight is planned after all.
  void Interrupt();

  // The core has just accepted this request.
  void OnAccepted(const LiveRequest& live) {
    if (oracle_ != nullptr) oracle_->Set(SequenceId{core_->counters().accepted}, live.request.output_tokens);
  }
  // Plans the next step; false when there is nothing to do. Then step() is in flight, of this composition.
  bool Plan(Time now, LiveTable* live);
  // A known step has the slices of the last planned one, only further on.
  const StepPlan& step() const { return *step_; }
  const StepShape& shape() const { return shape_; }
  Slot& slot(const Slice& slice) { return slots_[slice.slot]; }
  // Plan would pass the next step.
  bool knows_next() const { return known_left_ > 0; }
  // step() is a known one: its tokens all come after the same gap, counted by class as they follow each
  // other.
  bool known() const { return known_in_flight_; }
  struct ClassRun {
    int32_t class_index = 0;
    bool measured = false;
    int64_t count = 0;
  };
  absl::Span<const ClassRun> class_runs() const { return class_runs_; }
  Time last_end() const { return last_end_; }
  // With the step in flight.
  int64_t kv_tokens() const { return core_->kv_tokens() + (known_in_flight_ ? shape_.decodes : 0); }
  const DecisionRecord& decision() const { return known_in_flight_ ? known_why_ : core_->last_decision(); }
  // The step ends: its tokens go to the core. Events are appended to *events.
  absl::Status Finish(Time start, Time end, std::vector<TokenEvent>* events);

 private:
  // After a planned step: how far the future is known.
  void LookAhead(Time end);
  void SettleSlots();

  std::unique_ptr<WorkerCore> core_;
  uint64_t incarnation_ = 0;
  std::shared_ptr<OracleTable> oracle_;  // null: the predictor has to guess
  std::vector<Slot> slots_;              // [max_num_seqs]
  const StepPlan* step_ = nullptr;
  StepShape shape_;
  StepResult result_;

  bool fast_forward_ = false;
  int32_t known_left_ = 0;  // known steps to come
  bool known_in_flight_ = false;
  bool known_to_end_ = false;         // the last of them ends...
  std::vector<SampledToken> enders_;  // ...these
  bool slots_stale_ = false;          // they do not show last_end_ yet
  Time known_start_;                  // of the one in flight
  Time last_end_;                     // of the last step
  DecisionRecord known_why_;
  std::vector<ClassRun> class_runs_;
};

// The request as it is submitted: what it will make is known to the slot alone.
Submit SubmitOf(const LiveRequest& live, bool prefill);

}  // namespace orrery::sim

#endif  // ORRERY_ROUTER_SIM_SIM_WORKER_H_
