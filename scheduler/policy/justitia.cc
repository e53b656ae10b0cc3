#include "scheduler/policy/justitia.h"

#include <algorithm>

namespace orrery {
namespace {

// Applications have odd names, sequences without one even ones.
uint64_t AppOf(const SequenceView& sequence) {
  return sequence.application == 0 ? 2 * Value(sequence.id) : 2 * uint64_t{sequence.application} + 1;
}

}  // namespace

double KvTokenSteps(double prompt, double output) { return prompt * output + output * output / 2; }

void FairClock::Advance(Time now, double capacity) {
  double seconds = (now - now_).seconds();
  now_ = now;
  while (seconds > 0 && !by_tag_.empty() && capacity > 0) {
    const auto first = by_tag_.begin();
    const double rate = capacity / static_cast<double>(by_tag_.size());
    const double until = (first->first - virtual_) / rate;
    if (until > seconds) {
      virtual_ += rate * seconds;
      return;
    }
    virtual_ = first->first;
    seconds -= until;
    tags_.erase(first->second);
    by_tag_.erase(first);
  }
}

void FairClock::Raise(double tag) {
  virtual_ = std::max(virtual_, tag);
  while (!by_tag_.empty() && by_tag_.begin()->first <= virtual_) {
    tags_.erase(by_tag_.begin()->second);
    by_tag_.erase(by_tag_.begin());
  }
}

double FairClock::Arrive(App app, double cost) {
  double from = virtual_;
  if (const auto known = tags_.find(app); known != tags_.end()) {
    from = known->second->first;
    by_tag_.erase(known->second);
  }
  const double tag = from + cost;
  tags_[app] = by_tag_.emplace(tag, app);
  return tag;
}

absl::Span<const OptionField<JustitiaOptions>> JustitiaPolicy::Fields() {
  static constexpr OptionField<JustitiaOptions> kFields[] = {
      {"token_budget", &JustitiaOptions::token_budget, 0, 1 << 20, "tokens of a step; 0: --max-step-tokens"},
      {"quantile", &JustitiaOptions::quantile, 0, 1, "of the predicted length, for costs"},
      {"peak_quantile", &JustitiaOptions::peak_quantile, 0, 1, "of the predicted length, for memory"},
  };
  return kFields;
}

void JustitiaPolicy::OnArrival(const SequenceView& sequence, Time now) {
  arrived_.emplace_back(sequence, now);
}

void JustitiaPolicy::Plan(const WorkerView& worker, Time now, BatchDecision* decision) {
  pace_.Follow(worker.totals);
  const double step_s = pace_.mean_step().seconds();
  const double tokens = static_cast<double>(worker.blocks_total) * worker.limits.block_tokens;
  capacity_ = step_s > 0 ? tokens / step_s : 0;
  TagArrivals(worker);
  clock_.Advance(now, capacity_);

  const PeakRule rule = {options_.peak_quantile, 0, worker.limits.block_tokens};
  peak_.Follow(worker, rule, options_.token_budget);
  step_.Begin(worker, options_.token_budget);
  step_.GrantRunning(worker, decision);
  int64_t tried = 0;
  if (decision->preempt.empty() && !step_.full(worker)) tried = Admit(worker, decision);
  tags_.ForgetAbsent(worker);
  decision->why = {.policy = "justitia",
                   .objective = "applications that equal shares would still serve",
                   .value = static_cast<double>(clock_.active()),
                   .work = static_cast<int64_t>(worker.running.size()) + tried};
}

void JustitiaPolicy::TagArrivals(const WorkerView& worker) {
  together_.clear();
  for (const auto& [sequence, at] : arrived_) {
    clock_.Advance(at, capacity_);
    const int32_t output = PredictedOutput(worker, sequence, options_.quantile, 1);
    const double tag = clock_.Arrive(AppOf(sequence), KvTokenSteps(sequence.num_prompt, output));
    tags_.Set(sequence.id, {.own = tag});
    together_[AppOf(sequence)] = tag;
  }
  for (const auto& [sequence, at] : arrived_) {
    tags_.Set(sequence.id, {.order = together_[AppOf(sequence)], .own = tags_.Find(sequence.id)->own});
  }
  arrived_.clear();
}

JustitiaPolicy::Tag JustitiaPolicy::TagOf(const SequenceView& sequence) const {
  // A sequence that was forgotten while the worker did not show it is due at once.
  const Tag* tag = tags_.Find(sequence.id);
  return tag == nullptr ? Tag{clock_.virtual_time(), clock_.virtual_time()} : *tag;
}

int64_t JustitiaPolicy::Admit(const WorkerView& worker, BatchDecision* decision) {
  waiting_.Build(worker.waiting, [&](const SequenceView& sequence) { return TagOf(sequence).order; });
  int64_t tried = 0;
  while (!waiting_.empty()) {
    const SequenceView& sequence = worker.waiting[waiting_.Pop()];
    const int32_t predicted =
        PredictedOutput(worker, sequence, options_.peak_quantile, worker.limits.block_tokens);
    ++tried;
    if (!peak_.Fits(sequence, predicted)) break;
    if (step_.TryAdmit(worker, sequence, 0, decision) != AdmitResult::kAdmitted) break;
    peak_.Admit(sequence, predicted);
    clock_.Raise(TagOf(sequence).own);
  }
  return tried;
}

}  // namespace orrery
