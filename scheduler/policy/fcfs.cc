#include "scheduler/policy/fcfs.h"

#include <algorithm>

namespace orrery {

absl::Span<const OptionField<FcfsOptions>> FcfsPolicy::Fields() {
  static constexpr OptionField<FcfsOptions> kFields[] = {
      {"token_budget", &FcfsOptions::token_budget, 0, 1 << 20, "tokens of a step; 0: --max-step-tokens"},
      {"watermark", &FcfsOptions::watermark, 0, 0.5, "share of the pool that admission leaves free"},
  };
  return kFields;
}

void FcfsPolicy::Plan(const WorkerView& worker, Time, BatchDecision* decision) {
  step_.Begin(worker, options_.token_budget);
  OrderByArrival(worker.running);
  step_.GrantRunning(worker, decision);
  const int64_t room = step_.room(worker);
  const auto watermark = static_cast<int32_t>(options_.watermark * worker.blocks_total);
  // Who was preempted came before anyone who waits: first it gets its place back.
  if (decision->preempt.empty()) {
    for (const SequenceView& sequence : worker.waiting) {
      if (step_.TryAdmit(worker, sequence, watermark, decision) != AdmitResult::kAdmitted) break;
    }
  }
  const size_t admitted = decision->admit.size();
  const size_t running = worker.running.size() + static_cast<size_t>(worker.beside);
  decision->why = AdmissionRecord("fcfs", worker.waiting.size(), admitted, room,
                                  static_cast<int64_t>(running + admitted));
}

std::optional<DecisionRecord> FcfsPolicy::SteadyDecision(const SteadyView& view) const {
  const int64_t room = RoomInStep(view.limits, options_.token_budget, view.num_running, view.num_running);
  return AdmissionRecord("fcfs", view.num_waiting, 0, room, static_cast<int64_t>(view.num_running));
}

void FcfsPolicy::OrderByArrival(absl::Span<const SequenceView> running) {
  const auto earlier = [&](int32_t a, int32_t b) {
    return running[static_cast<size_t>(a)].id < running[static_cast<size_t>(b)].id;
  };
  // Admission order is nearly arrival order: the check saves the sort in almost every step.
  std::vector<int32_t>& order = step_.order();
  if (!std::is_sorted(order.begin(), order.end(), earlier)) std::sort(order.begin(), order.end(), earlier);
}

}  // namespace orrery
