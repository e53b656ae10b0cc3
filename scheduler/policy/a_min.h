// A_min (arXiv:2508.14544): shortest first under lengths known only as an interval, of which it trusts the
// lower end and learns the rest by running: ratio O(log(u / l)), where planning with the upper end (A_max,
// which is mc-sf with quantile=1) has a ratio linear in u / l. The pseudocode is a reconstruction from
// summaries of the paper; ties are ours.
//
//   est(i) = lower bound, and never less than what i has generated
//   1. repair: while the next step does not fit, the one with the least max(est, generated) gives way
//   2. refine: who has reached its estimate is expected to run one more step
//   3. admit by ascending est - aging * seconds waited, like mc-sf, with est for the length
//
// Nothing is admitted in a step that preempts: whoever gave way would come straight back. In the paper a
// preempted job starts over; here its tokens are kept and their KV is computed again, so that est is a
// function of the sequence alone. O(running log(running) + waiting + tried * log(waiting)).
#ifndef ORRERY_SCHEDULER_POLICY_A_MIN_H_
#define ORRERY_SCHEDULER_POLICY_A_MIN_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/peak_admission.h"
#include "scheduler/policy/running_step.h"
#include "scheduler/policy/waiting_order.h"

namespace orrery {

struct AMinOptions {
  int32_t token_budget = 0;  // tokens of a step; 0: the worker's max_step_tokens
  double quantile = 0;       // of the predicted length; 0: the lower bound of the paper
  double aging = 10;         // tokens per second
};

class AMinPolicy final : public BatchPolicy {
 public:
  static absl::Span<const OptionField<AMinOptions>> Fields();

  explicit AMinPolicy(const AMinOptions& options) : options_(options) {}
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override;

 private:
  bool BlocksAreShort(const WorkerView& worker) const;
  void OrderByEstimate(const WorkerView& worker);
  int64_t Admit(const WorkerView& worker, Time now, BatchDecision* decision);

  AMinOptions options_;
  RunningStep step_;
  PeakAdmission peak_;
  WaitingOrder waiting_;
  std::vector<int32_t> known_;  // of worker.running: max(estimate, generated)
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_A_MIN_H_
