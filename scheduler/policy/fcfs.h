// Sarathi-Serve (arXiv:2403.02310): decode first, then prompts in arrival order in chunks, all under one
// token budget per step, so that a long prompt never stalls running streams. The baseline of every
// comparison.
//
//   1. every running sequence with one token to compute gets it, oldest arrival first; where blocks run out,
//      the latest arrival is preempted, at last the sequence itself;
//   2. running prefills, oldest first, take what is left of the budget;
//   3. waiting sequences in arrival order take the rest; admission stops at the first that does not fit: its
//      whole known length must have blocks, with a watermark left over so that decodes can grow.
//
// Stopping at the first makes starvation impossible. Decodes count against the budget but are cut only by
// the engine's own limit. O(running + admitted).
#ifndef ORRERY_SCHEDULER_POLICY_FCFS_H_
#define ORRERY_SCHEDULER_POLICY_FCFS_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/running_step.h"

namespace orrery {

struct FcfsOptions {
  int32_t token_budget = 0;  // tokens of a step; 0: the worker's max_step_tokens
  double watermark = 0.01;   // share of the pool that admission leaves free while something runs
};

class FcfsPolicy final : public BatchPolicy {
 public:
  static absl::Span<const OptionField<FcfsOptions>> Fields();

  explicit FcfsPolicy(const FcfsOptions& options) : options_(options) {}
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override;
  std::optional<DecisionRecord> SteadyDecision(const SteadyView& view) const override;

 private:
  void OrderByArrival(absl::Span<const SequenceView> running);

  FcfsOptions options_;
  RunningStep step_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_FCFS_H_
