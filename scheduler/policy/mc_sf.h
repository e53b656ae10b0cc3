// MC-SF, memory constrained shortest first (arXiv:2502.07115, Eq. 5): all that runs goes on; of those
// waiting, by predicted output, the longest prefix whose future peak fits the pool starts. Minimises total
// end-to-end latency: O(1)-competitive for a batch of equal prompts, while every rule has ratio Omega(sqrt n)
// for adversarial arrivals.
//
// The paper's programme, which this greedy follows in hindsight-free order: min sum of completion times over
// start times p_i >= a_i, with sum of (s_i + t - p_i) over those running at t at most M for all t.
//
//   key(i) = predicted remaining output - aging * seconds waited          (aging 0: the paper's order)
//   in ascending key: start i if Peak(running + started + i) <= (1 - protection) M, else stop
//   skip: go on behind one that does not fit, unless it has waited `patience_s`: with mixed prompts a short
//   output with a large prompt need not block smaller work
//
// The prefix rule with aging starves nobody: whoever waits long enough becomes the head, and nothing starts
// before it does. A prediction that proved too low is stretched by a block; nothing starts while the peak is
// over the limit, and when blocks run out the latest admitted gives way (the paper clears everything).
// O(running + waiting + tried * log(waiting)).
#ifndef ORRERY_SCHEDULER_POLICY_MC_SF_H_
#define ORRERY_SCHEDULER_POLICY_MC_SF_H_

#include <cstdint>

#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/peak_admission.h"
#include "scheduler/policy/running_step.h"
#include "scheduler/policy/waiting_order.h"

namespace orrery {

struct McSfOptions {
  int32_t token_budget = 0;  // tokens of a step; 0: the worker's max_step_tokens
  double quantile = 0.9;     // of the predicted length; 1: the upper bound of the paper
  double protection = 0;     // 0.1 in the paper where predictions are noisy
  bool skip = false;
  double aging = 10;       // tokens per second
  double patience_s = 30;  // with skip
};

class McSfPolicy final : public BatchPolicy {
 public:
  static absl::Span<const OptionField<McSfOptions>> Fields();

  explicit McSfPolicy(const McSfOptions& options) : options_(options) {}
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override;

 private:
  int64_t Admit(const WorkerView& worker, Time now, BatchDecision* decision);

  McSfOptions options_;
  RunningStep step_;
  PeakAdmission peak_;
  WaitingOrder waiting_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_MC_SF_H_
