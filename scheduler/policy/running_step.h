// Fills one step in the way of Sarathi-Serve (arXiv:2403.02310): decodes first, then prompts in chunks, all
// under one token budget, and never more blocks than there are. What policies differ in is who comes first,
// who gives way and who is admitted.
//
//   step.Begin(worker, budget);           // order() = admission order
//   ... reorder step.order() ...          // most precious first; victims are taken from its back
//   step.GrantRunning(worker, decision);
//   step.TryAdmit(worker, waiting[i], watermark, decision);  // as often as wanted
//
// O(running + admitted); no allocation once grown.
#ifndef ORRERY_SCHEDULER_POLICY_RUNNING_STEP_H_
#define ORRERY_SCHEDULER_POLICY_RUNNING_STEP_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "scheduler/kv/block_ledger.h"
#include "scheduler/policy/batch_policy.h"

namespace orrery {

enum class AdmitResult : uint8_t {
  kAdmitted,
  kNoBlocks,  // this one does not fit
  kFull,      // no row, no slot or no tokens left in this step: nobody does
};

// Sequences that rows and tokens of a step still let in, of which `used` tokens are granted: the most that
// anybody could admit, if every prompt were short and KV memory no limit. `token_budget` as below.
int64_t RoomInStep(const BatchLimits& limits, int32_t token_budget, size_t num_running, size_t used_tokens);

// What an admission rule is judged by: how many it left waiting. No rule could have left fewer than those for
// whom there was no room in the step; the gap between the two are those that wait for memory.
DecisionRecord AdmissionRecord(std::string_view policy, size_t num_waiting, size_t num_admitted, int64_t room,
                               int64_t work);

class RunningStep {
 public:
  // `token_budget` 0: the engine's own limit, which always holds.
  void Begin(const WorkerView& worker, int32_t token_budget);
  // Indices into worker.running.
  std::vector<int32_t>& order() { return order_; }

  // Gives the first `active` of the order what they can have: a token to each decode (cut only by the
  // engine's limit), then chunks to prefills. Where a decode finds no block, the last of the order is
  // preempted, at last the decode itself; later prefills make room for earlier ones. Prompts begun keep a
  // claim on the blocks of their rest.
  void GrantRunning(const WorkerView& worker, BatchDecision* decision, size_t active = SIZE_MAX);

  // Parts of GrantRunning, for policies that put waiting prompts or later decodes in between. They may cut
  // the order from its back, by preemption.
  void GrantDecodes(const WorkerView& worker, size_t begin, size_t end, BatchDecision* decision);
  // A chunk for the prefill at order()[i], or nothing when the budget is spent. REQUIRES: i < order().size().
  void GrantPrefill(const WorkerView& worker, size_t i, BatchDecision* decision, int32_t limit = INT32_MAX);
  // A token for the decode at order()[i] when that takes nothing from anybody.
  bool TryGrantDecode(const WorkerView& worker, size_t i, BatchDecision* decision);

  // Takes the last of the order off the engine. REQUIRES: it has no grant in this step.
  void PreemptLast(const WorkerView& worker, BatchDecision* decision);

  // Admits with as much of its known tokens as the budget leaves, when blocks for all of them are there and
  // `watermark` more (which does not bind while nobody runs).
  AdmitResult TryAdmit(const WorkerView& worker, const SequenceView& sequence, int32_t watermark,
                       BatchDecision* decision);
  // Nobody else can be admitted in this step, whoever it is.
  bool full(const WorkerView& worker) const;

  // Blocks that the rest of the sequence at order()[i] takes.
  int32_t Claim(const WorkerView& worker, size_t i) const;
  // The sequence at order()[i].
  const SequenceView& view(const WorkerView& worker, size_t i) const {
    return worker.running[static_cast<size_t>(order_[i])];
  }

  // RoomInStep at this moment; the bound of a decision is that of after GrantRunning.
  int64_t room(const WorkerView& worker) const {
    return RoomInStep(worker.limits, budget_, num_running_, static_cast<size_t>(used_));
  }

  int32_t budget() const { return budget_; }
  int32_t tokens_left() const { return std::max(0, budget_ - used_); }
  int32_t blocks_available() const { return ledger_.available(); }
  // Still running and admitted ones.
  size_t num_running() const { return num_running_; }

 private:
  std::vector<int32_t> order_;
  BlockLedger ledger_{0};
  int32_t budget_ = 0, used_ = 0, free_slots_ = 0;
  size_t num_running_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_RUNNING_STEP_H_
