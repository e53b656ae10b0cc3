// Hybrid offline-online scheduling (arXiv:2502.15763): steps are either prefill or decode, and a Lagrangian
// comparison of what each keeps waiting says which. For engines that prefill alone.
//
//   D decodes, I = rows - D idle rows, k = min(I, requests that wait), T_p(k) time of their prompts, T_d of a
//   decode step:
//     cost = T_p(k) * D             slot-seconds of decodes stalled by a prefill now
//     wait = sum of T_d * k         slot-seconds of rows idle, over the decode steps since the last prefill
//   D = 0 or wait >= cost: prefill k requests, wait = 0; else a decode step
//
// Reconstructed, as the ski-rental reading of the paper's rule: neither costs more than twice what the best
// switch would have. Requests are taken by predicted output - aging * seconds waited, the shortest first
// (`longest`: the longest first, which the paper uses for a backlog without arrivals); aging and stopping at
// the first without blocks starve nobody. A prefill phase takes as many steps as the k prompts need under the
// token budget. T_p and T_d come from the worker's cost model, without one from the pace so far. When blocks
// run out the latest admitted gives way. O(running + waiting).
#ifndef ORRERY_SCHEDULER_POLICY_LAGRANGIAN_H_
#define ORRERY_SCHEDULER_POLICY_LAGRANGIAN_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/running_step.h"
#include "scheduler/policy/step_pace.h"
#include "scheduler/policy/waiting_order.h"

namespace orrery {

struct LagrangianOptions {
  int32_t token_budget = 0;  // tokens of a step; 0: the worker's max_step_tokens
  double quantile = 0.5;     // of the predicted length
  bool longest = false;
  double aging = 10;        // tokens per second
  double watermark = 0.01;  // share of the pool that admission leaves free
};

class LagrangianPolicy final : public BatchPolicy {
 public:
  static absl::Span<const OptionField<LagrangianOptions>> Fields();

  explicit LagrangianPolicy(const LagrangianOptions& options) : options_(options) {}
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override;

 private:
  // Decodes first in the step's order; how many is left in num_decodes_.
  void Arrange(const WorkerView& worker);
  // The first of those that wait, at most `count`, to next_.
  void Queue(const WorkerView& worker, Time now, size_t count);
  double PrefillSeconds(const WorkerView& worker) const;
  double DecodeSeconds(const WorkerView& worker) const;
  void Prefill(const WorkerView& worker, BatchDecision* decision);

  LagrangianOptions options_;
  StepPace pace_;
  RunningStep step_;
  WaitingOrder waiting_;
  std::vector<int32_t> next_;  // into worker.waiting
  size_t num_decodes_ = 0;
  size_t phase_ = 0;   // requests that the prefill phase still takes
  double wait_s_ = 0;  // slot-seconds of idle rows
  double cost_s_ = 0;  // slot-seconds that a prefill now would stall
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_LAGRANGIAN_H_
