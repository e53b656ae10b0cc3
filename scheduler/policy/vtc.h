// VTC, virtual token counter (arXiv:2401.00588; rules as in the authors' code): fairness between tenants by
// work received. Of two tenants that always have requests waiting, neither gets more than
// 2 max(w_p L_input, w_q M) ahead of the other.
//
//   arrival of a request of u with none of u waiting: c_u = max(c_u, min of c_v over v with requests waiting)
//   admission: u = argmin c among tenants that wait (ties: the earlier head); its first request starts when
//     it fits, by the future peak with every output as long as predicted at `quantile`;
//     c_u += w_p input / weight; at the first that does not fit all stop
//   every output token of u: c_u += w_q / weight
//
// With `predict` (VTC-predict; VTC-oracle where the predictor knows) a request is charged at admission for
// the output predicted at that quantile, then for the tokens beyond it, and gets back what it did not make. A
// cancelled one gets nothing back.
//
// The lift keeps an idle tenant from saving up credit; waiting tenants alone count for it. `profiled` charges
// the increments of the published cost h(input, output) instead of w_p and w_q. A tenant's weight is
// `priority_weight` to the power of the request's priority, of -8 to 8. A request computed again after a
// preemption is not charged again. The head of the least counter holds up all others, so nobody starves.
// O(running + waiting log tenants).
#ifndef ORRERY_SCHEDULER_POLICY_VTC_H_
#define ORRERY_SCHEDULER_POLICY_VTC_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/peak_admission.h"
#include "scheduler/policy/per_sequence.h"
#include "scheduler/policy/running_step.h"

namespace orrery {

struct VtcOptions {
  int32_t token_budget = 0;  // tokens of a step; 0: the worker's max_step_tokens
  double input_weight = 1, output_weight = 2;
  bool profiled = false;
  double priority_weight = 1;
  double quantile = 1;  // of the predicted length; 1: its upper bound
  double predict = 0;   // quantile of the output that is charged at admission; 0: tokens as they come
};

// Cost of a request of `input` prompt and `output` tokens as profiled by the authors (S-LoRA, Llama-7B).
double ProfiledCost(double input, double output);

class VtcPolicy final : public BatchPolicy {
 public:
  static constexpr size_t kMaxTenants = 4096;  // idle ones beyond are forgotten
  static absl::Span<const OptionField<VtcOptions>> Fields();

  explicit VtcPolicy(const VtcOptions& options) : options_(options) {}
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override;
  void OnArrival(const SequenceView& sequence, Time now) override;
  void OnFinished(const SequenceView& sequence, Time now) override;

  // 0 for a tenant that is not known (any more).
  double counter(uint32_t tenant) const;

 private:
  struct Tenant {
    uint32_t id = 0;
    double counter = 0;
    int32_t waiting = 0;           // that never ran
    int32_t head = -1, tail = -1;  // of its waiting requests, in Plan: indices into worker.waiting
  };
  Tenant* Of(uint32_t id);
  double LeastWaiting() const;
  void Charge(const SequenceView& sequence, double work);
  double Work(const SequenceView& sequence, int32_t output) const;
  void ChargeAdmission(const WorkerView& worker, const SequenceView& sequence);
  void ChargeToken(const SequenceView& sequence);
  void ChargeRunning(const WorkerView& worker, const BatchDecision& decision);
  void Recount(const WorkerView& worker);
  void QueueByTenant(const WorkerView& worker);
  int64_t Admit(const WorkerView& worker, BatchDecision* decision);

  VtcOptions options_;
  RunningStep step_;
  PeakAdmission peak_;
  PerSequence<int32_t> charged_;  // with `predict`: output tokens charged at admission
  std::vector<Tenant> tenants_;   // ascending id
  std::vector<int32_t> behind_;   // of worker.waiting: the tenant's next, -1
  std::vector<std::pair<std::pair<double, int32_t>, uint32_t>> heads_;  // heap: ((counter, head), tenant)
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_VTC_H_
