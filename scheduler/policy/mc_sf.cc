#include "scheduler/policy/mc_sf.h"

namespace orrery {

absl::Span<const OptionField<McSfOptions>> McSfPolicy::Fields() {
  static constexpr OptionField<McSfOptions> kFields[] = {
      {"token_budget", &McSfOptions::token_budget, 0, 1 << 20, "tokens of a step; 0: --max-step-tokens"},
      {"quantile", &McSfOptions::quantile, 0, 1, "of the predicted length; 1: its upper bound"},
      {"protection", &McSfOptions::protection, 0, 0.9, "share of the pool that predictions may not fill"},
      {"skip", &McSfOptions::skip, "go on behind a sequence that does not fit"},
      {"aging", &McSfOptions::aging, 0, 1e6, "predicted tokens forgiven per second of waiting"},
      {"patience_s", &McSfOptions::patience_s, 0, 1e6, "with skip: who waited longer is not passed over"},
  };
  return kFields;
}

void McSfPolicy::Plan(const WorkerView& worker, Time now, BatchDecision* decision) {
  const PeakRule rule = {options_.quantile, options_.protection, worker.limits.block_tokens};
  peak_.Follow(worker, rule, options_.token_budget);
  step_.Begin(worker, options_.token_budget);
  step_.GrantRunning(worker, decision);
  const int64_t room = step_.room(worker);
  int64_t tried = 0;
  if (decision->preempt.empty() && !step_.full(worker)) tried = Admit(worker, now, decision);
  decision->why = AdmissionRecord("mc-sf", worker.waiting.size(), decision->admit.size(), room,
                                  static_cast<int64_t>(worker.running.size()) + tried);
}

int64_t McSfPolicy::Admit(const WorkerView& worker, Time now, BatchDecision* decision) {
  const int32_t stretch = worker.limits.block_tokens;
  waiting_.Build(worker.waiting, [&](const SequenceView& sequence) {
    const int32_t left =
        PredictedOutput(worker, sequence, options_.quantile, stretch) - sequence.num_generated;
    return left - options_.aging * (now - sequence.arrival).seconds();
  });
  int64_t tried = 0;
  while (!waiting_.empty()) {
    const SequenceView& sequence = worker.waiting[waiting_.Pop()];
    const int32_t predicted = PredictedOutput(worker, sequence, options_.quantile, stretch);
    ++tried;
    const AdmitResult result = peak_.Fits(sequence, predicted) ? step_.TryAdmit(worker, sequence, 0, decision)
                                                               : AdmitResult::kNoBlocks;
    if (result == AdmitResult::kAdmitted) {
      peak_.Admit(sequence, predicted);
    } else if (result == AdmitResult::kFull || !options_.skip ||
               (now - sequence.arrival).seconds() >= options_.patience_s) {
      break;
    }
  }
  return tried;
}

}  // namespace orrery
