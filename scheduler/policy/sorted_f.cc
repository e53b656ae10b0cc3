#include "scheduler/policy/sorted_f.h"

#include <algorithm>

namespace orrery {
namespace {

// Position of the first one that arrived no earlier than `id`.
size_t Position(absl::Span<const SequenceView> waiting, SequenceId id) {
  return static_cast<size_t>(
      std::lower_bound(waiting.begin(), waiting.end(), id,
                       [](const SequenceView& view, SequenceId key) { return view.id < key; }) -
      waiting.begin());
}

}  // namespace

absl::Span<const OptionField<SortedFOptions>> SortedFPolicy::Fields() {
  static constexpr OptionField<SortedFOptions> kFields[] = {
      {"token_budget", &SortedFOptions::token_budget, 0, 1 << 20, "tokens of a step; 0: --max-step-tokens"},
      {"quantile", &SortedFOptions::quantile, 0, 1, "of the predicted length"},
      {"protection", &SortedFOptions::protection, 0, 0.9, "share of the pool that predictions may not fill"},
      {"replan_arrivals", &SortedFOptions::replan_arrivals, 1, 1 << 20,
       "new sequences that ask for an order"},
      {"replan_ms", &SortedFOptions::replan_ms, 1, 1 << 30, "age at which an order is made again"},
      {"patience_s", &SortedFOptions::patience_s, 0, 1e6, "who waited longer goes before all batches"},
  };
  return kFields;
}

void SortedFPolicy::Plan(const WorkerView& worker, Time now, BatchDecision* decision) {
  const PeakRule rule = {options_.quantile, options_.protection, worker.limits.block_tokens};
  peak_.Follow(worker, rule, options_.token_budget);
  step_.Begin(worker, options_.token_budget);
  step_.GrantRunning(worker, decision);
  const int64_t room = step_.room(worker);
  size_t sorted = 0;
  if (decision->preempt.empty() && !worker.waiting.empty() && !step_.full(worker)) {
    if (MustReplan(worker, now)) {
      Replan(worker, now);
      sorted = worker.waiting.size();
    }
    Admit(worker, decision);
  }
  decision->why = AdmissionRecord("sorted-f", worker.waiting.size(), decision->admit.size(), room,
                                  static_cast<int64_t>(worker.running.size() + sorted));
}

bool SortedFPolicy::MustReplan(const WorkerView& worker, Time now) {
  // Those that were admitted or cancelled meanwhile.
  while (head_ < queue_.size()) {
    const size_t at = Position(worker.waiting, queue_[head_]);
    if (at < worker.waiting.size() && worker.waiting[at].id == queue_[head_]) break;
    ++head_;
  }
  if (head_ == queue_.size()) return true;
  if ((now - planned_at_) >= Duration::Milliseconds(options_.replan_ms)) return true;
  const size_t known = Position(worker.waiting, SequenceId{Value(last_planned_) + 1});
  return worker.waiting.size() - known >= static_cast<size_t>(options_.replan_arrivals);
}

void SortedFPolicy::Replan(const WorkerView& worker, Time now) {
  queue_.clear();
  head_ = 0;
  jobs_.clear();
  job_index_.clear();
  for (size_t i = 0; i < worker.waiting.size(); ++i) {
    const SequenceView& sequence = worker.waiting[i];
    if ((now - sequence.arrival).seconds() >= options_.patience_s) {
      queue_.push_back(sequence.id);
      continue;
    }
    const int32_t predicted =
        PredictedOutput(worker, sequence, options_.quantile, worker.limits.block_tokens);
    // Without the newest token, as in the future peak: it is made by the step that computes the prompt.
    jobs_.push_back({sequence.num_tokens - 1, predicted - sequence.num_generated});
    job_index_.push_back(static_cast<int32_t>(i));
  }
  const auto memory =
      static_cast<int64_t>((1 - options_.protection) * worker.blocks_total * worker.limits.block_tokens);
  for (const int32_t job : sorter_.Compute(jobs_, memory)) {
    queue_.push_back(worker.waiting[static_cast<size_t>(job_index_[static_cast<size_t>(job)])].id);
  }
  last_planned_ = worker.waiting.back().id;
  planned_at_ = now;
}

void SortedFPolicy::Admit(const WorkerView& worker, BatchDecision* decision) {
  for (; head_ < queue_.size(); ++head_) {
    const size_t at = Position(worker.waiting, queue_[head_]);
    if (at == worker.waiting.size() || worker.waiting[at].id != queue_[head_]) continue;
    const SequenceView& sequence = worker.waiting[at];
    const int32_t predicted =
        PredictedOutput(worker, sequence, options_.quantile, worker.limits.block_tokens);
    if (!peak_.Fits(sequence, predicted)) return;
    if (step_.TryAdmit(worker, sequence, 0, decision) != AdmitResult::kAdmitted) return;
    peak_.Admit(sequence, predicted);
  }
}

}  // namespace orrery
