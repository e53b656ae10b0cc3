#include "scheduler/policy/flow_prefill.h"

#include <algorithm>
#include <cmath>

#include "scheduler/policy/peak_admission.h"

namespace orrery {

absl::Span<const OptionField<FlowPrefillOptions>> FlowPrefillPolicy::Fields() {
  static constexpr OptionField<FlowPrefillOptions> kFields[] = {
      {"token_budget", &FlowPrefillOptions::token_budget, 0, 1 << 20,
       "tokens of a step; 0: --max-step-tokens"},
      {"ttft_ms", &FlowPrefillOptions::ttft_ms, 0, 1e9, "time to first token of a request that states none"},
      {"tpot_ms", &FlowPrefillOptions::tpot_ms, 0, 1e9,
       "time per output token of a request that states none"},
      {"late_s", &FlowPrefillOptions::late_s, 0, 1e9, "delay of prompts whose deadline is lost"},
      {"watermark", &FlowPrefillOptions::watermark, 0, 0.5, "share of the pool that admission leaves free"},
  };
  return kFields;
}

void FlowPrefillPolicy::Plan(const WorkerView& worker, Time now, BatchDecision* decision) {
  pace_.Follow(worker.totals);
  step_.Begin(worker, options_.token_budget);
  step_so_far_ = {};
  size_t prefills = 0;
  for (const SequenceView& sequence : worker.running) {
    prefills += !sequence.is_decode();
    if (sequence.tokens_to_compute() == 1) step_so_far_.shape.AddDecode(sequence.num_tokens);
  }
  // Nothing but admission makes more of them: one has ended, as a prompt or altogether, or gave way.
  if (prefills < num_begun_) event_ = now;
  const auto key = [&](const SequenceView& sequence) {
    const double late = Slack(worker, sequence, event_) < 0 ? options_.late_s : 0;
    return FirstToken(worker, sequence) + late;
  };
  merge_.Arrange(worker, key, &step_);
  step_.GrantDecodes(worker, 0, merge_.num_decodes(), decision);
  merge_.Grant(
      worker, key, static_cast<int32_t>(options_.watermark * worker.blocks_total), &step_, decision,
      [&](const SequenceView& sequence) { return Joins(worker, sequence, now); },
      [&](const SequenceView&) { step_so_far_ = next_; });
  num_begun_ = prefills + decision->admit.size();
  decision->why = {.policy = "flow-prefill",
                   .objective = "seconds until the first deadline of the step's prompts",
                   .value = std::isinf(step_so_far_.due) ? 0 : step_so_far_.due - now.seconds(),
                   .work = static_cast<int64_t>(worker.running.size() + worker.waiting.size())};
}

double FlowPrefillPolicy::FirstToken(const WorkerView& worker, const SequenceView& sequence) const {
  const double output = sequence.deadline.is_never() ? 0 : PredictedOutput(worker, sequence, 0.5, 1);
  return slo_.FirstToken(sequence, output);
}

double FlowPrefillPolicy::Takes(const WorkerView& worker, const SequenceView& sequence) const {
  const int32_t left = sequence.tokens_to_compute() - sequence.cached_tokens;
  if (worker.cost != nullptr) {
    StepShape shape;
    shape.AddChunk(sequence.num_computed + sequence.cached_tokens, left);
    return worker.cost->Predict(shape).seconds();
  }
  const double rate = pace_.prefill_rate();
  return rate > 0 ? left / rate : 0;
}

double FlowPrefillPolicy::Slack(const WorkerView& worker, const SequenceView& sequence, Time now) const {
  return FirstToken(worker, sequence) - now.seconds() - Takes(worker, sequence);
}

bool FlowPrefillPolicy::Joins(const WorkerView& worker, const SequenceView& sequence, Time now) {
  const int32_t left = sequence.tokens_to_compute() - sequence.cached_tokens;
  next_ = step_so_far_;
  next_.shape.AddChunk(sequence.num_computed + sequence.cached_tokens, std::min(left, step_.tokens_left()));
  if (Slack(worker, sequence, now) >= 0) next_.due = std::min(next_.due, FirstToken(worker, sequence));
  const bool first = step_so_far_.shape.chunks == 0;
  return first || worker.cost == nullptr ||
         now.seconds() + worker.cost->Predict(next_.shape).seconds() <= next_.due;
}

}  // namespace orrery
