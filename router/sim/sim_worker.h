// One worker of a simulation: a WorkerCore, and an engine that knows only how long a step takes and how many
// tokens a request makes.
#ifndef ORRERY_ROUTER_SIM_SIM_WORKER_H_
#define ORRERY_ROUTER_SIM_SIM_WORKER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
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

  // A new incarnation, empty. The predictor may be an oracle.
  absl::Status Start(const WorkerSpec& spec, uint64_t incarnation);
  void Stop() { core_.reset(); }
  bool up() const { return core_ != nullptr; }
  WorkerCore* core() { return core_.get(); }
  uint64_t incarnation() const { return incarnation_; }

  // The core has just accepted this request.
  void OnAccepted(const LiveRequest& live) {
    if (oracle_ != nullptr) oracle_->Set(SequenceId{core_->counters().accepted}, live.request.output_tokens);
  }
  // Plans the next step; false when there is nothing to do. Then step() is in flight, of this composition.
  bool Plan(Time now, LiveTable* live);
  const StepPlan& step() const { return *step_; }
  const StepShape& shape() const { return shape_; }
  Slot& slot(const Slice& slice) { return slots_[slice.slot]; }
  // The step ends: its tokens go to the core. Events are appended to *events.
  absl::Status Finish(Time start, Time end, std::vector<TokenEvent>* events);

 private:
  std::unique_ptr<WorkerCore> core_;
  uint64_t incarnation_ = 0;
  std::shared_ptr<OracleTable> oracle_;  // null: the predictor has to guess
  std::vector<Slot> slots_;              // [max_num_seqs]
  const StepPlan* step_ = nullptr;
  StepShape shape_;
  StepResult result_;
};

// The request as it is submitted: what it will make is known to the slot alone.
Submit SubmitOf(const LiveRequest& live, bool prefill);

}  // namespace orrery::sim

#endif  // ORRERY_ROUTER_SIM_SIM_WORKER_H_
