#include "scheduler/policy/lagrangian.h"

#include <algorithm>

#include "scheduler/cost/step_cost.h"
#include "scheduler/policy/peak_admission.h"

namespace orrery {
namespace {

constexpr double kRounding = 1e-9;

}  // namespace

absl::Span<const OptionField<LagrangianOptions>> LagrangianPolicy::Fields() {
  static constexpr OptionField<LagrangianOptions> kFields[] = {
      {"token_budget", &LagrangianOptions::token_budget, 0, 1 << 20,
       "tokens of a step; 0: --max-step-tokens"},
      {"quantile", &LagrangianOptions::quantile, 0, 1, "of the predicted length"},
      {"longest", &LagrangianOptions::longest, "the longest first, for a backlog without arrivals"},
      {"aging", &LagrangianOptions::aging, 0, 1e6, "predicted tokens forgiven per second of waiting"},
      {"watermark", &LagrangianOptions::watermark, 0, 0.5, "share of the pool that admission leaves free"},
  };
  return kFields;
}

void LagrangianPolicy::Plan(const WorkerView& worker, Time now, BatchDecision* decision) {
  pace_.Follow(worker.totals);
  step_.Begin(worker, options_.token_budget);
  Arrange(worker);
  const bool begun = num_decodes_ < step_.order().size() || phase_ > 0;
  const auto rows = static_cast<size_t>(worker.limits.max_num_seqs);
  const size_t idle = rows - std::min(rows, worker.running.size());
  Queue(worker, now, begun ? std::min(idle, phase_) : idle);
  cost_s_ = begun ? 0 : PrefillSeconds(worker) * static_cast<double>(num_decodes_);
  if (!begun && (num_decodes_ == 0 || wait_s_ >= cost_s_ * (1 - kRounding))) phase_ = next_.size();
  if (begun || phase_ > 0) Prefill(worker, decision);
  if (decision->run.empty() && decision->admit.empty()) {
    phase_ = 0;
    if (!begun) wait_s_ += DecodeSeconds(worker) * static_cast<double>(next_.size());
    step_.GrantDecodes(worker, 0, num_decodes_, decision);
  }
  decision->why = {.policy = "lagrangian",
                   .objective = "slot-seconds idle less slot-seconds a prefill would stall",
                   .value = wait_s_ - cost_s_,
                   .work = static_cast<int64_t>(worker.running.size() + worker.waiting.size())};
}

void LagrangianPolicy::Arrange(const WorkerView& worker) {
  std::vector<int32_t>& order = step_.order();
  num_decodes_ = static_cast<size_t>(
      std::stable_partition(
          order.begin(), order.end(),
          [&](int32_t i) { return worker.running[static_cast<size_t>(i)].tokens_to_compute() == 1; }) -
      order.begin());
}

void LagrangianPolicy::Queue(const WorkerView& worker, Time now, size_t count) {
  next_.clear();
  count = std::min(count, worker.waiting.size());
  if (count == 0) return;
  const double sign = options_.longest ? -1 : 1;
  waiting_.Build(worker.waiting, [&](const SequenceView& sequence) {
    return sign * PredictedOutput(worker, sequence, options_.quantile, 1) -
           options_.aging * (now - sequence.arrival).seconds();
  });
  while (next_.size() < count) next_.push_back(static_cast<int32_t>(waiting_.Pop()));
}

double LagrangianPolicy::PrefillSeconds(const WorkerView& worker) const {
  StepShape shape;
  for (const int32_t i : next_) {
    const SequenceView& sequence = worker.waiting[static_cast<size_t>(i)];
    shape.AddChunk(sequence.cached_tokens, sequence.num_tokens - sequence.cached_tokens);
  }
  if (worker.cost != nullptr) return worker.cost->Predict(shape).seconds();
  const double rate = pace_.prefill_rate();
  return rate > 0 ? shape.prefill_tokens / rate : 0;
}

double LagrangianPolicy::DecodeSeconds(const WorkerView& worker) const {
  if (worker.cost == nullptr) return pace_.mean_step().seconds();
  StepShape shape;
  for (const SequenceView& sequence : worker.running) shape.AddDecode(sequence.num_tokens);
  return worker.cost->Predict(shape).seconds();
}

// The prompts begun, then the rest of the phase.
void LagrangianPolicy::Prefill(const WorkerView& worker, BatchDecision* decision) {
  for (size_t i = num_decodes_; i < step_.order().size(); ++i) step_.GrantPrefill(worker, i, decision);
  if (!decision->preempt.empty()) phase_ = 0;
  const auto watermark = static_cast<int32_t>(options_.watermark * worker.blocks_total);
  for (size_t i = 0; i < next_.size() && phase_ > 0; ++i) {
    const SequenceView& sequence = worker.waiting[static_cast<size_t>(next_[i])];
    const AdmitResult result = step_.TryAdmit(worker, sequence, watermark, decision);
    if (result == AdmitResult::kNoBlocks) phase_ = 0;
    if (result != AdmitResult::kAdmitted) break;
    --phase_;
  }
  if (!decision->run.empty() || !decision->admit.empty()) wait_s_ = 0;
}

}  // namespace orrery
