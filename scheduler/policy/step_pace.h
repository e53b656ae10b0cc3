// How fast the engine has been, from the totals that a policy sees: running means over the last `kWindow`
// steps, in which the newest counts as much as any (plain means until then).
#ifndef ORRERY_SCHEDULER_POLICY_STEP_PACE_H_
#define ORRERY_SCHEDULER_POLICY_STEP_PACE_H_

#include <algorithm>
#include <cstdint>

#include "scheduler/policy/batch_policy.h"

namespace orrery {

class StepPace {
 public:
  static constexpr int64_t kWindow = 1000;  // steps

  void Follow(const StepTotals& totals) {
    const int64_t steps = totals.steps - seen_.steps;
    if (steps <= 0) return;
    // Several at once count as so many of equal length.
    const double weight =
        std::min(1.0, static_cast<double>(steps) / static_cast<double>(std::min(totals.steps, kWindow)));
    const double kept = 1 - weight;
    const auto blend = [&](double* mean, double sum) {
      *mean = kept * *mean + weight * sum / static_cast<double>(steps);
    };
    blend(&step_s_, (totals.time - seen_.time).seconds());
    blend(&prefill_s_, (totals.prefill_time - seen_.prefill_time).seconds());
    blend(&prefill_tokens_, static_cast<double>(totals.prefill_tokens - seen_.prefill_tokens));
    seen_ = totals;
  }
  // 0 before the first step.
  Duration mean_step() const { return Duration::Seconds(step_s_); }
  // Prompt tokens per second of the steps that held some; 0 while none did.
  double prefill_rate() const { return prefill_s_ > 0 ? prefill_tokens_ / prefill_s_ : 0; }

 private:
  StepTotals seen_;
  double step_s_ = 0, prefill_s_ = 0, prefill_tokens_ = 0;  // means over steps
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_STEP_PACE_H_
