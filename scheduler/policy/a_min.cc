#include "scheduler/policy/a_min.h"

#include <algorithm>
#include <vector>

namespace orrery {

absl::Span<const OptionField<AMinOptions>> AMinPolicy::Fields() {
  static constexpr OptionField<AMinOptions> kFields[] = {
      {"token_budget", &AMinOptions::token_budget, 0, 1 << 20, "tokens of a step; 0: --max-step-tokens"},
      {"quantile", &AMinOptions::quantile, 0, 1, "of the predicted length; 0: its lower bound"},
      {"aging", &AMinOptions::aging, 0, 1e6, "predicted tokens forgiven per second of waiting"},
  };
  return kFields;
}

void AMinPolicy::Plan(const WorkerView& worker, Time now, BatchDecision* decision) {
  peak_.Follow(worker, {.quantile = options_.quantile, .protection = 0, .stretch = 1}, options_.token_budget);
  step_.Begin(worker, options_.token_budget);
  if (BlocksAreShort(worker)) OrderByEstimate(worker);
  step_.GrantRunning(worker, decision);
  const int64_t room = step_.room(worker);
  int64_t tried = 0;
  if (decision->preempt.empty() && !step_.full(worker)) tried = Admit(worker, now, decision);
  decision->why = AdmissionRecord("a-min", worker.waiting.size(), decision->admit.size(), room,
                                  static_cast<int64_t>(worker.running.size()) + tried);
}

// Somebody might have to give way: only then the order matters.
bool AMinPolicy::BlocksAreShort(const WorkerView& worker) const {
  int64_t need = 0;
  for (size_t i = 0; i < worker.running.size(); ++i) need += step_.Claim(worker, i);
  return need > worker.blocks_free;
}

// The least known progress at the back, ties: the earlier arrival.
void AMinPolicy::OrderByEstimate(const WorkerView& worker) {
  known_.clear();
  for (const SequenceView& sequence : worker.running) {
    known_.push_back(PredictedOutput(worker, sequence, options_.quantile, 0));
  }
  const auto before = [&](int32_t a, int32_t b) {
    const auto i = static_cast<size_t>(a), j = static_cast<size_t>(b);
    if (known_[i] != known_[j]) return known_[i] > known_[j];
    return worker.running[i].id > worker.running[j].id;
  };
  std::vector<int32_t>& order = step_.order();
  if (!std::is_sorted(order.begin(), order.end(), before)) std::sort(order.begin(), order.end(), before);
}

int64_t AMinPolicy::Admit(const WorkerView& worker, Time now, BatchDecision* decision) {
  waiting_.Build(worker.waiting, [&](const SequenceView& sequence) {
    return PredictedOutput(worker, sequence, options_.quantile, 1) -
           options_.aging * (now - sequence.arrival).seconds();
  });
  int64_t tried = 0;
  while (!waiting_.empty()) {
    const SequenceView& sequence = worker.waiting[waiting_.Pop()];
    const int32_t estimate = PredictedOutput(worker, sequence, options_.quantile, 1);
    ++tried;
    if (!peak_.Fits(sequence, estimate)) break;
    if (step_.TryAdmit(worker, sequence, 0, decision) != AdmitResult::kAdmitted) break;
    peak_.Admit(sequence, estimate);
  }
  return tried;
}

}  // namespace orrery
