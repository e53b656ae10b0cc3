#include "scheduler/policy/slai.h"

#include <algorithm>

namespace orrery {

absl::Span<const OptionField<SlaiOptions>> SlaiPolicy::Fields() {
  static constexpr OptionField<SlaiOptions> kFields[] = {
      {"token_budget", &SlaiOptions::token_budget, 0, 1 << 20, "tokens of a step; 0: --max-step-tokens"},
      {"tpot_ms", &SlaiOptions::tpot_ms, 0, 1e9, "time per output token of a request that states none"},
      {"offset", &SlaiOptions::offset, 0, 1e6, "mean steps before its due time that a decode is urgent"},
      {"offset_full", &SlaiOptions::offset_full, 0, 1e6, "the same when memory is short"},
      {"memory_limit", &SlaiOptions::memory_limit, 0, 1, "used share of the pool that makes memory short"},
      {"aging", &SlaiOptions::aging, 0, 1e9, "prompt tokens forgiven per second of waiting"},
      {"watermark", &SlaiOptions::watermark, 0, 0.5, "share of the pool that admission leaves free"},
  };
  return kFields;
}

void SlaiPolicy::Plan(const WorkerView& worker, Time now, BatchDecision* decision) {
  pace_.Follow(worker.totals);
  step_.Begin(worker, options_.token_budget);
  Arrange(worker, now);
  step_.GrantDecodes(worker, 0, num_urgent_, decision);
  for (size_t i = decodes_.size(); i < step_.order().size(); ++i) step_.GrantPrefill(worker, i, decision);
  // Whoever gave way would come straight back.
  if (decision->preempt.empty() && !step_.full(worker)) Admit(worker, now, decision);
  GrantLater(worker, decision);
  decision->why = {.policy = "slai",
                   .objective = "decodes that must run in this step",
                   .value = static_cast<double>(num_urgent_),
                   .work = static_cast<int64_t>(worker.running.size() + worker.waiting.size())};
}

void SlaiPolicy::Arrange(const WorkerView& worker, Time now) {
  const double used = 1 - static_cast<double>(worker.blocks_free) / std::max(1, worker.blocks_total);
  const double steps = used < options_.memory_limit ? options_.offset : options_.offset_full;
  const Duration lead = Duration::Seconds(steps * pace_.mean_step().seconds());
  const Duration own = Duration::Seconds(options_.tpot_ms * 1e-3);
  decodes_.clear();
  std::vector<int32_t>& order = step_.order();
  order.clear();
  for (size_t i = 0; i < worker.running.size(); ++i) {
    const SequenceView& sequence = worker.running[i];
    if (sequence.tokens_to_compute() > 1) {
      order.push_back(static_cast<int32_t>(i));
      continue;
    }
    // What makes the first token of a sequence has no pace yet: it does not wait.
    Time due = sequence.next_token_deadline;
    if (due.is_never()) due = sequence.last_token + own;
    if (sequence.last_token.is_never()) due = sequence.arrival;
    decodes_.emplace_back(Time{due.ns - lead.ns}, static_cast<int32_t>(i));
  }
  std::sort(decodes_.begin(), decodes_.end());
  num_urgent_ = static_cast<size_t>(std::partition_point(decodes_.begin(), decodes_.end(),
                                                         [now](const auto& d) { return d.first <= now; }) -
                                    decodes_.begin());
  // Prefills behind the decodes, where victims are taken.
  order.insert(order.begin(), decodes_.size(), 0);
  std::transform(decodes_.begin(), decodes_.end(), order.begin(), [](const auto& d) { return d.second; });
}

void SlaiPolicy::Admit(const WorkerView& worker, Time now, BatchDecision* decision) {
  const auto watermark = static_cast<int32_t>(options_.watermark * worker.blocks_total);
  waiting_.Build(worker.waiting, [&](const SequenceView& sequence) {
    return sequence.num_tokens - options_.aging * (now - sequence.arrival).seconds();
  });
  while (!waiting_.empty()) {
    const SequenceView& sequence = worker.waiting[waiting_.Pop()];
    if (step_.TryAdmit(worker, sequence, watermark, decision) != AdmitResult::kAdmitted) return;
  }
}

void SlaiPolicy::GrantLater(const WorkerView& worker, BatchDecision* decision) {
  const size_t end = std::min(decodes_.size(), step_.order().size());
  for (size_t i = num_urgent_; i < end; ++i) step_.TryGrantDecode(worker, i, decision);
  // Memory is full and nobody is in a hurry: somebody has to go on all the same.
  if (decision->run.empty() && decision->admit.empty()) {
    step_.GrantDecodes(worker, num_urgent_, num_urgent_ + 1, decision);
  }
}

}  // namespace orrery
