// Past-Future (arXiv:2507.10150, LightLLM): arrival order; the head is admitted while the future peak of all,
// with the remaining length of each drawn from the lengths that finished lately given what it has generated,
// stays inside the pool. Meant for --predictor empirical; with another predictor the draw is from its
// quantiles.
//
//   lists = min(max_lists, 200 / running + 1) independent draws of all lengths
//   admit the head while max over lists of Peak(list + head) <= (1 - reserve) M; stop at the first failure
//
// The worst of several draws counters the noise of one. A draw is a hash of (sequence, plan, list): the same
// history gives the same decisions. Stopping at the first starves nobody. When a draw was too hopeful the
// latest admitted gives way. O(lists * running * log(running)) in steps that can admit, else O(running).
#ifndef ORRERY_SCHEDULER_POLICY_PAST_FUTURE_H_
#define ORRERY_SCHEDULER_POLICY_PAST_FUTURE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/peak_admission.h"
#include "scheduler/policy/running_step.h"

namespace orrery {

struct PastFutureOptions {
  int32_t token_budget = 0;  // tokens of a step; 0: the worker's max_step_tokens
  double reserve = 0.05;     // share of the pool that predictions may not fill
  int32_t max_lists = 5;
  int32_t seed = 1;  // of the draws
};

class PastFuturePolicy final : public BatchPolicy {
 public:
  static absl::Span<const OptionField<PastFutureOptions>> Fields();

  explicit PastFuturePolicy(const PastFutureOptions& options) : options_(options) {}
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override;

 private:
  int64_t Draw(const WorkerView& worker, const SequenceView& sequence, size_t list) const;
  void DrawLists(const WorkerView& worker);
  // The worst peak over all lists with the candidate, whose draws are left in drawn_.
  int64_t WorstPeakWith(const WorkerView& worker, const SequenceView& candidate);
  void Admit(const WorkerView& worker, BatchDecision* decision);

  PastFutureOptions options_;
  RunningStep step_;
  PrefillQueue prefills_;
  std::vector<FuturePeak> lists_;  // the first num_lists_ are in use
  size_t num_lists_ = 0;
  std::vector<FuturePeak::Entry> entries_;
  std::vector<int64_t> drawn_;  // remaining steps of the candidate, by list
  uint64_t plans_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_PAST_FUTURE_H_
