// One worker of a simulation: a WorkerCore, and an engine that knows only how long a step takes and how many
// tokens a request makes. Since it knows who ends when, decodes stand apart wherever WorkerCore lets them: a
// step costs what its newcomers and those that end in it cost, and one without either nothing. Everything
// else is planned and finished as it would be live.
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
    SampleKey key;
    int32_t output_tokens = 0;
    int32_t class_index = 0;
    int32_t made = 0;  // up to last_token
    Time last_token = Time::Never();
    uint32_t seed = 0;  // of its token ids; 0: they do not matter
    bool measured = false;
  };

  // A new incarnation, empty. The predictor may be an oracle. `fast_forward`: decodes may stand apart
  // (WorkerCore::PlanBeside, KnownSteps).
  absl::Status Start(const WorkerSpec& spec, uint64_t incarnation, bool fast_forward);
  void Stop() { core_.reset(); }
  bool up() const { return core_ != nullptr; }
  // To ask; whoever is about to tell it something calls ExpectArrival or Interrupt first.
  WorkerCore* core() { return core_.get(); }
  const WorkerCore* core() const { return core_.get(); }
  uint64_t incarnation() const { return incarnation_; }
  // Nobody stands apart any more; a known step in flight is planned after all.
  void Interrupt();
  // What comes after the step in flight has to be planned; with ids all of it. Who arrives is no part of that
  // step, whatever else comes before its end.
  void ExpectArrival(const Submit& submit) {
    PlanAfterAll();
    if (submit.tokens != nullptr) Interrupt();
  }

  // The core has just accepted this request.
  void OnAccepted(const LiveRequest& live) {
    if (oracle_ != nullptr) oracle_->Set(SequenceId{core_->counters().accepted}, live.request.output_tokens);
  }
  // Plans the next step; false when there is nothing to do. Then it is in flight: the sequences of plan(),
  // and those apart, whose tokens all come after the same gap, counted by class as they follow each other.
  bool Plan(Time now, LiveTable* live);
  // Empty while the step is known.
  const StepPlan& plan() const { return known_in_flight_ ? no_plan_ : *step_; }
  struct ClassRun {
    int32_t class_index = 0;
    bool measured = false;
    int64_t count = 0;
  };
  absl::Span<const ClassRun> class_runs() const {
    return absl::MakeSpan(class_runs_).first(num_apart_ > 0 ? class_runs_.size() : 0);
  }
  int32_t num_sequences() const { return static_cast<int32_t>(plan().slices.size()) + num_apart_; }
  int32_t num_samples() const { return plan().num_samples + num_apart_; }
  const StepShape& shape() const { return shape_; }
  Slot& slot(const Slice& slice) { return slots_[slice.slot]; }
  // Of ended requests too. After Interrupt up to date.
  absl::Span<const Slot> slots() const { return slots_; }
  // The id of an output token.
  static TokenId OutputToken(const Slot& slot, int32_t index);
  // Plan would pass the next step.
  bool knows_next() const { return known_left_ > 0; }
  bool known() const { return known_in_flight_; }
  Time last_end() const { return last_end_; }
  // With the step in flight.
  int64_t kv_tokens() const { return core_->kv_tokens() + (known_in_flight_ ? num_apart_ : 0); }
  const DecisionRecord& decision() const { return known_in_flight_ ? known_why_ : core_->last_decision(); }
  // The step ends: its tokens go to the core. Events are appended to *events.
  absl::Status Finish(Time start, Time end, std::vector<TokenEvent>* events);

 private:
  // A sequence apart.
  struct Member {
    SequenceId id{};
    uint32_t slot = 0;
    int32_t class_index = 0;
    bool measured = false;
    int64_t ends_at = 0;  // clock after the step that makes its last token
  };
  // A known step in flight is planned; those apart stay apart.
  void PlanAfterAll();
  // Writes to the slots what those apart have made, and forgets them.
  void SettleSlots();
  // Those of the plan that decode from now on.
  void TakeIn();
  void EndDue(std::vector<SampledToken>* ended);
  // After a planned step, or a change of members.
  void LookAhead();

  std::unique_ptr<WorkerCore> core_;
  uint64_t incarnation_ = 0;
  std::shared_ptr<OracleTable> oracle_;  // null: the predictor has to guess
  std::vector<Slot> slots_;              // [max_num_seqs]
  const StepPlan* step_ = nullptr;
  const StepPlan no_plan_;
  StepShape shape_;
  StepResult result_;

  bool fast_forward_ = false;
  std::vector<Member> members_;  // ascending id
  int64_t clock_ = 0;            // steps done
  int64_t next_end_ = 0;         // least ends_at
  std::vector<ClassRun> class_runs_;
  std::vector<SampledToken> ended_;  // scratch
  int32_t num_apart_ = 0;            // in the step in flight
  int32_t known_left_ = 0;           // known steps to come
  bool known_in_flight_ = false;
  Time known_start_;  // of the one in flight
  Time last_end_;     // of the last step
  DecisionRecord known_why_;
};

// The request as it is submitted: what it will make is known to the slot alone.
Submit SubmitOf(const LiveRequest& live, bool prefill);

}  // namespace orrery::sim

#endif  // ORRERY_ROUTER_SIM_SIM_WORKER_H_
