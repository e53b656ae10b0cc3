// What the next engine step of one worker computes. A policy sees a view, returns a decision and changes
// nothing; WorkerCore checks the decision against the ledger and commits it as a StepPlan. Same view, same
// policy state: same decision. No clock, no randomness, ties broken by sequence id.
#ifndef ORRERY_SCHEDULER_POLICY_BATCH_POLICY_H_
#define ORRERY_SCHEDULER_POLICY_BATCH_POLICY_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/types/decision_record.h"
#include "scheduler/types/sequence_view.h"

namespace orrery {

class LengthPredictor;
class StepCostModel;

struct BatchLimits {
  int32_t max_step_tokens = 2048;
  int32_t max_num_seqs = 256;
  int32_t block_tokens = 16;
};

// Steps that have ended so far, by the engine's time.
struct StepTotals {
  int64_t steps = 0;
  Duration time{};
  int64_t prefill_tokens = 0;  // of chunks
  Duration prefill_time{};     // of the steps with chunks
};

struct WorkerView {
  absl::Span<const SequenceView> waiting;  // arrival order (preempted ones keep their arrival)
  absl::Span<const SequenceView> running;  // admission order
  int32_t blocks_free = 0;                 // free + evictable cached blocks
  int32_t blocks_total = 0;
  int32_t free_slots = 0;  // for sequences that never ran; preempted ones have kept theirs
  // Sequences that run and decode but are not in `running`: each has its token and its row in this step, and
  // the blocks they take are off blocks_free. Only for policies that promise it (SteadyDecision).
  int32_t beside = 0;
  BatchLimits limits;
  StepTotals totals;
  const StepCostModel* cost = nullptr;  // null: none fitted
  const LengthPredictor* predictor = nullptr;
};

// `count` tokens of a running (or, in admissions, of a waiting) sequence.
struct Grant {
  SequenceId sequence{};
  int32_t count = 0;
};

struct BatchDecision {
  std::vector<SequenceId> preempt;  // running -> waiting, before anything else
  std::vector<Grant> run;           // running sequences, in the order blocks are given out
  std::vector<Grant>
      admit;  // waiting sequences, in the order blocks are given out; count excludes the cached prefix
  Time wake = Time::Never();  // idles on purpose: plan again at this time
  DecisionRecord why;
  void Clear() {
    preempt.clear();
    run.clear();
    admit.clear();
    wake = Time::Never();
    why = {};
  }
};

// A worker on which all run and all decode.
struct SteadyView {
  size_t num_running = 0, num_waiting = 0;
  BatchLimits limits;
};

class BatchPolicy {
 public:
  virtual ~BatchPolicy() = default;
  // Fills an empty *decision. Grants that the ledger cannot back with blocks make WorkerCore's repair rule
  // act (latest admitted sequence is preempted), so a promise about memory is the policy's to keep, not to
  // break.
  virtual void Plan(const WorkerView& worker, Time now, BatchDecision* decision) = 0;
  // What Plan would say of a step in which all running sequences decode and nobody is admitted, if it
  // promises that of every such step: that (1) it lets all decode, in ascending order of id, whenever each is
  // one token short, blocks are there and nobody waits; that (2) whom it did not admit into a step in which
  // all decoded it does not admit into the next one, when nothing happened but that step; that (3) it decides
  // about the others alike when those who decode stand beside (WorkerView::beside), as long as there are
  // blocks for them; and that it keeps no account of steps. The default promises nothing.
  virtual std::optional<DecisionRecord> SteadyDecision(const SteadyView&) const { return std::nullopt; }
  // Facts a policy may learn from; default: none needed. Every sequence arrives once, before the first Plan
  // that shows it.
  virtual void OnArrival(const SequenceView&, Time) {}
  virtual void OnFinished(const SequenceView&, Time) {}
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_BATCH_POLICY_H_
