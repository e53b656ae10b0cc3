// WAIT (arXiv:2504.11320): waits on purpose until enough requests of a class have arrived to make a batch
// worth its fixed cost, and advances a class only together with new arrivals of it. Throughput-optimal in the
// fluid limit; not work-conserving. The trigger is the variant of the authors' code that any one class can
// pull (`all` = the paper's: every class); classes are octaves of the output predicted at arrival (a
// prediction that drifts would move all residents into a class without bookings at once), rates are learnt.
//
//   share_j = L rate_j (l'_j + 1) / sum, per_stage_j = max(1, floor(share_j / (l'_j + 1)))  (wait_limits.h)
//   class j advances when waiting_j >= min(per_stage_j, share_j - resident_j); then all its residents make a
//   token and at most that many of it are admitted, in arrival order
//
// Who has waited for `timeout_ms` since its arrival or its last token triggers its class by itself, so
// nothing starves, whatever the estimates: at low load every token takes that much longer. L is `total`, or
// what the pool holds at the mean size of a resident, at most the rows of a step. Residents that do not
// advance keep their KV; when blocks run out they are preempted first, the latest admitted before others.
// O(running + waiting).
#ifndef ORRERY_SCHEDULER_POLICY_WAIT_H_
#define ORRERY_SCHEDULER_POLICY_WAIT_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/per_sequence.h"
#include "scheduler/policy/running_step.h"
#include "scheduler/policy/wait_limits.h"

namespace orrery {

struct WaitOptions {
  int32_t token_budget = 0;  // tokens of a step; 0: the worker's max_step_tokens
  int32_t total = 0;         // L, requests; 0: from the pool
  double quantile = 0.5;     // of the predicted length
  bool all = false;          // every class must have enough
  double timeout_ms = 10;
  double horizon_s = 60;    // over which rates are learnt
  double watermark = 0.01;  // share of the pool that admission leaves free
};

class WaitPolicy final : public BatchPolicy {
 public:
  static absl::Span<const OptionField<WaitOptions>> Fields();

  explicit WaitPolicy(const WaitOptions& options) : options_(options) {}
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override;
  void OnFinished(const SequenceView& sequence, Time) override { class_of_.Erase(sequence.id); }

 private:
  static constexpr size_t kClasses = 32;  // outputs [2^j, 2^(j+1))
  struct Class {
    double weight = 0;                // arrivals, those longer ago count less
    double prompts = 0, outputs = 0;  // tokens of the same
    int32_t waiting = 0, resident = 0;
    int32_t quota = 0;  // admissions of this step
    bool advances = false;
    Time overdue = Time::Never();  // when the first of it runs out of patience
  };
  size_t ClassOf(const WorkerView& worker, const SequenceView& sequence);
  void Learn(const WorkerView& worker, Time now);
  void Count(const WorkerView& worker);
  void Trigger(const WorkerView& worker, Time now);
  double Total(const WorkerView& worker) const;
  size_t OrderActiveFirst(const WorkerView& worker);

  WaitOptions options_;
  RunningStep step_;
  std::array<Class, kClasses> classes_;
  PerSequence<uint8_t> class_of_;
  std::vector<uint8_t> running_class_, waiting_class_;  // of the views of this step
  std::vector<LengthClass> mix_;
  std::vector<Booking> limits_;
  std::vector<int32_t> paused_;
  SequenceId last_seen_{};
  Time learnt_at_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_WAIT_H_
