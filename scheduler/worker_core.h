// The scheduler of one worker as a state machine without I/O: arrivals, cancels, step results and timers in,
// step plans and token events out. It owns the waiting and running sequences and the accounting of the KV
// pool, asks a BatchPolicy what the next step computes, checks the answer and commits it as a StepPlan. It
// reads no clock, takes no lock and starts no thread: the live driver and the simulator run this same code.
//
// Driver, single-threaded:
//   core.OnArrival / OnCancel ...              as messages come
//   if (core.NextWake() <= now) core.OnTimer(now, &events);
//   if (core.can_plan()) {
//     const StepPlan& plan = core.Plan(now);
//     if (!plan.empty()) executor.Launch(plan); // also when it only releases slots
//   }
//   executor.Wait(oldest) -> core.OnStepDone(result, now, &events)  or  core.OnStepFailed(step, ...)
//
// Promises. Every accepted sample ends exactly once, with one event whose `finish` is not kNone; its tokens
// come before, in order, with ascending index; before them the log-probabilities of its prompt where it asked
// for them, every position once whatever is preempted. Any sample accepted can finish when it runs alone, so
// repair by preemption always makes progress. Steps take effect in launch order: a block freed by one plan
// may be written by the next. Blocks and slots of a sequence that ends while a step with it is in flight are
// freed when that step is done; a slot is reused only in or after the plan that lists it in released_slots.
// All queues are bounded; steady decoding does not allocate.
#ifndef ORRERY_SCHEDULER_WORKER_CORE_H_
#define ORRERY_SCHEDULER_WORKER_CORE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/types/decision_record.h"
#include "scheduler/types/request.h"
#include "scheduler/types/step_plan.h"
#include "scheduler/types/worker_state.h"

namespace orrery {

class EvictionPolicy;
class JournalWriter;
class LengthPredictor;
class StepCostModel;

// What the worker is. The sizes are the engine's (EngineLimits) unless the operator asked for less.
struct WorkerOptions {
  WorkerId worker{};
  uint64_t incarnation = 0;
  WorkerRole role = WorkerRole::kMixed;
  GroupId group{};
  uint32_t rank = 0;

  int32_t num_blocks = 0;          // [1, 2^26]
  int32_t block_tokens = 16;       // [1, 1024]
  int32_t max_num_seqs = 256;      // running sequences, engine slots; [1, 4096]
  int32_t max_step_tokens = 2048;  // [1, 2^20]
  int32_t max_context = 4096;      // prompt + output tokens of one sequence; [2, 2^24]
  int32_t vocab_size = 0;          // sampled ids are checked against it; 0: not checked
  int32_t max_waiting = 65536;     // samples that wait; [1, 2^20]
  int32_t max_in_flight = 1;       // 1, or 2: Plan runs while one step is in flight
  int32_t lookahead = 0;           // steps ahead for which State asks the predictor who ends; [0, 10]
  bool prefix_cache = true;
  uint64_t hash_key = 0;     // secret of the block hash chain
  bool block_tables = true;  // plans carry them; a simulated engine has no memory and needs none
};

// Everything a worker decides with. `predictor` and `cost` may be null.
struct WorkerParts {
  std::unique_ptr<BatchPolicy> policy;
  std::unique_ptr<EvictionPolicy> eviction;
  std::shared_ptr<LengthPredictor> predictor;
  std::shared_ptr<StepCostModel> cost;  // learns from the steps
};

// Ascending since the start.
struct WorkerCounters {
  uint64_t accepted = 0, refused = 0;
  uint64_t finished[6] = {};       // by FinishReason
  uint64_t prompt_tokens = 0;      // of accepted samples
  uint64_t generated_tokens = 0;   // events with a token
  uint64_t computed_tokens = 0;    // rows of finished steps
  uint64_t prefix_hit_tokens = 0;  // tokens not computed thanks to the prefix cache, re-admissions included
  uint64_t preemptions = 0;
  uint64_t recomputed_tokens = 0;  // KV tokens lost to preemption
  uint64_t wasted_rows = 0;        // rows of sequences that had ended
  uint64_t evicted_blocks = 0;     // cached blocks given to somebody else
  uint64_t steps = 0, failed_steps = 0;
  uint64_t repairs = 0;    // grants or preemptions of a policy that could not be committed as asked
  uint64_t fallbacks = 0;  // a policy left work idle without asking to be woken; fcfs planned instead
};

enum class StateScope : uint8_t { kAll, kSums };

class WorkerCore {
 public:
  static absl::StatusOr<std::unique_ptr<WorkerCore>> Create(const WorkerOptions& options, WorkerParts parts);
  ~WorkerCore();
  WorkerCore(const WorkerCore&) = delete;
  WorkerCore& operator=(const WorkerCore&) = delete;

  // Accepts a sample, or says why not (scheduler/types/refusal.h inside the status) and changes nothing but
  // WorkerState::last_submission, which covers what was refused as well.
  absl::Status OnArrival(Submit submit, Time now);
  // Ends a sample (every sample of a request) with kCancelled. Unknown or ended: nothing happens.
  void OnCancel(const SampleKey& key, Time now, std::vector<TokenEvent>* events);
  void OnCancelRequest(RequestId request, Time now, std::vector<TokenEvent>* events);
  // Ends samples whose deadline has passed with kDeadline. Call when NextWake() <= now; harmless otherwise.
  void OnTimer(Time now, std::vector<TokenEvent>* events);
  // Refuses all further arrivals; what is here goes on.
  void Drain(Time now);

  // The next step. The plan is also in flight from now on unless it is empty(); it stays unchanged until
  // its OnStepDone or OnStepFailed. REQUIRES: can_plan().
  const StepPlan& Plan(Time now);
  // Fewer than max_in_flight steps are in flight, and none samples for a sequence with penalties, which must
  // know that token before it can choose the next.
  bool can_plan() const;
  // The oldest step in flight is done. A result that does not fit its plan is an error and changes nothing.
  absl::Status OnStepDone(const StepResult& result, Time now, std::vector<TokenEvent>* events);
  // The oldest step in flight is lost: all its sequences end with kError.
  absl::Status OnStepFailed(StepId step, std::string_view error, Time now, std::vector<TokenEvent>* events);

  // When to call OnTimer or Plan although nothing happened: the next deadline, or the wish of a policy that
  // idles. Never(): only an event can change anything.
  Time NextWake() const;
  // Plan would have something to do: sequences, or slots to release.
  bool has_work() const;
  // Nothing waits, runs or is in flight, and every slot was released.
  bool idle() const;
  int32_t in_flight() const;

  // For a simulator, which knows when samples stop: sequences that decode stand apart, and what they do costs
  // nothing per step; everybody else is planned as ever. Everything that comes of it is the same, the order
  // of free blocks included. It works where the policy promises it (BatchPolicy::SteadyDecision), ids do not
  // matter (no prompt has any), no journal is kept and steps are not pipelined, else nobody stands apart; a
  // plan leaves nobody out when it carries block tables.
  struct Beside {
    int32_t decodes = 0;
    int64_t decode_context = 0;  // as in StepShape
  };
  // As Plan, but the plan leaves out those apart, who decode too: *beside. The result of such a step names,
  // before the plan's samples, those apart whom it ends.
  const StepPlan& PlanBeside(Time now, Beside* beside);
  // Who stands apart, if the next step were theirs alone. Sets apart who can be. REQUIRES: no step in flight.
  Beside Apart();
  // How many of the next steps are theirs alone, with the decision *why each time, as long as no sample ends
  // before the last of them and nothing comes in between.
  int32_t KnownSteps(DecisionRecord* why);
  // Such a step from Plan to OnStepDone without events. What arrives while it is in flight may come before.
  // REQUIRES: within KnownSteps.
  void PassKnownStep(Time start, Time end);
  // The step passed last ended these, named with the token it made, in ascending order: their last events.
  // All that reached their bound must be among them. REQUIRES: nothing but arrivals since PassKnownStep.
  void EndAfterKnownStep(absl::Span<const SampledToken> ended, std::vector<TokenEvent>* events);
  // Nobody stands apart any more; a step in flight lists them.
  void Settle();

  // Snapshot, and forgets the samples finished and the prefix events since the last one. O(running + events);
  // kSums is O(events) without a lookahead and leaves `running` and the block counts empty.
  void State(Time now, WorkerState* state, StateScope scope = StateScope::kAll);
  // Snapshots tell from now on what the prefix cache holds and how that changes, without a prefix cache
  // nothing. Again: all anew.
  void TellPrefixes();
  // The next snapshot has some to tell.
  bool has_prefix_events() const;
  // Facts of an ended sample; kept from its last event until the second Plan after it.
  std::optional<SampleReport> Report(const SampleKey& key) const;
  const WorkerCounters& counters() const;
  const WorkerOptions& options() const;
  const StepCostModel* cost() const;            // null: none
  const DecisionRecord& last_decision() const;  // of the last Plan that asked the policy
  int32_t num_waiting() const;
  int32_t num_running() const;
  int64_t waiting_tokens() const;  // tokens to compute of all waiting samples
  int64_t kv_tokens() const;       // of running samples, resident or in flight

  // Records every input and a digest of every plan from now on (null: stops). Not owned; see journal.h.
  void set_journal(JournalWriter* journal);

  // Every invariant of the bookkeeping, in O(everything): for tests. The first one broken, by name.
  absl::Status CheckInvariants() const;

 private:
  class Impl;
  explicit WorkerCore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_WORKER_CORE_H_
