// Sorted-F (arXiv:2508.06133): a backlog with mixed prompts and outputs is ordered once by batches of least
// F(X) = sum of outputs / |X|^2 (sorted_f_order.h; ratio at most 48, where arrival order and shortest first
// can be arbitrarily bad), then served in that order by rolling admission: the head starts as soon as the
// future peak with it fits the pool.
//
// The order is made again when `replan_arrivals` new sequences wait, when it is used up, and every
// `replan_ms`. F knows nothing of waiting and puts large prompts last: who has waited `patience_s` goes
// before all batches, in arrival order. When blocks run out the latest admitted gives way. O(running +
// admitted); with a new order O(waiting * log(waiting)) more.
#ifndef ORRERY_SCHEDULER_POLICY_SORTED_F_H_
#define ORRERY_SCHEDULER_POLICY_SORTED_F_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/peak_admission.h"
#include "scheduler/policy/running_step.h"
#include "scheduler/policy/sorted_f_order.h"

namespace orrery {

struct SortedFOptions {
  int32_t token_budget = 0;  // tokens of a step; 0: the worker's max_step_tokens
  double quantile = 0.5;     // of the predicted length
  double protection = 0;     // share of the pool that predictions may not fill
  int32_t replan_arrivals = 16;
  int32_t replan_ms = 500;
  double patience_s = 30;
};

class SortedFPolicy final : public BatchPolicy {
 public:
  static absl::Span<const OptionField<SortedFOptions>> Fields();

  explicit SortedFPolicy(const SortedFOptions& options) : options_(options) {}
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override;

 private:
  bool MustReplan(const WorkerView& worker, Time now);
  void Replan(const WorkerView& worker, Time now);
  void Admit(const WorkerView& worker, BatchDecision* decision);

  SortedFOptions options_;
  RunningStep step_;
  PeakAdmission peak_;
  SortedFOrder sorter_;
  std::vector<SortedFOrder::Job> jobs_;
  std::vector<int32_t> job_index_;  // into waiting, of jobs_
  std::vector<SequenceId> queue_;   // serving order; those before head_ are gone
  size_t head_ = 0;
  SequenceId last_planned_{};  // the latest arrival that the order knows
  Time planned_at_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_SORTED_F_H_
