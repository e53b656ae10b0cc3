#include "scheduler/policy/edf.h"

#include <algorithm>
#include <limits>

#include "scheduler/cost/step_cost.h"
#include "scheduler/policy/peak_admission.h"

namespace orrery {
namespace {

constexpr int32_t kTile = 256;         // steps are multiples of it
constexpr int32_t kLowKvTokens = 512;  // of a step while memory is short

}  // namespace

absl::Span<const OptionField<EdfOptions>> EdfPolicy::Fields() {
  static constexpr OptionField<EdfOptions> kFields[] = {
      {"ttft_ms", &EdfOptions::ttft_ms, 0, 1e9, "time to first token of a request that states none"},
      {"tpot_ms", &EdfOptions::tpot_ms, 0, 1e9, "time per output token of a request that states none"},
      {"batch_tpot_ms", &EdfOptions::batch_tpot_ms, 0, 1e9, "the same where there is only a deadline"},
      {"kappa", &EdfOptions::kappa, 0, 1e3, "seconds that a prompt token left adds to a deadline"},
      {"dynamic_chunk", &EdfOptions::dynamic_chunk, "steps as large as the least slack allows"},
      {"margin", &EdfOptions::margin, 1, 10, "predicted step times are multiplied by it"},
      {"min_tokens", &EdfOptions::min_tokens, 1, 1 << 20, "of a dynamic step"},
      {"max_tokens", &EdfOptions::max_tokens, 1, 1 << 20, "of a dynamic step"},
      {"low_kv", &EdfOptions::low_kv, 0, 1, "free share of the pool below which steps stay at 512 tokens"},
      {"relegate_s", &EdfOptions::relegate_s, 0, 1e9, "delay of prompts whose deadline is lost; 0: none"},
      {"bank", &EdfOptions::bank, "an early first token is time in hand for the next ones"},
      {"watermark", &EdfOptions::watermark, 0, 0.5, "share of the pool that admission leaves free"},
  };
  return kFields;
}

EdfPolicy::EdfPolicy(const EdfOptions& options)
    : options_(options), slo_{options.ttft_ms * 1e-3, options.tpot_ms * 1e-3, options.batch_tpot_ms * 1e-3} {}

void EdfPolicy::Plan(const WorkerView& worker, Time now, BatchDecision* decision) {
  pace_.Follow(worker.totals);
  const auto key = [&](const SequenceView& sequence) { return Key(worker, sequence, now); };
  const double slack = LeastSlack(worker, now);
  const int32_t tokens = StepTokens(worker, slack);
  step_.Begin(worker, tokens);
  merge_.Arrange(worker, key, &step_);
  step_.GrantDecodes(worker, 0, merge_.num_decodes(), decision);
  merge_.Grant(worker, key, static_cast<int32_t>(options_.watermark * worker.blocks_total), &step_, decision);
  decision->why = {.policy = "edf",
                   .objective = "tokens that the most urgent decode leaves to this step",
                   .value = static_cast<double>(tokens),
                   .work = static_cast<int64_t>(worker.running.size() + worker.waiting.size())};
}

double EdfPolicy::FirstToken(const WorkerView& worker, const SequenceView& sequence) const {
  const double output = sequence.deadline.is_never() ? 0 : PredictedOutput(worker, sequence, 0.5, 1);
  return slo_.FirstToken(sequence, output);
}

double EdfPolicy::Key(const WorkerView& worker, const SequenceView& sequence, Time now) const {
  const double deadline = FirstToken(worker, sequence);
  const int32_t left = sequence.tokens_to_compute() - sequence.cached_tokens;
  const double key = deadline + options_.kappa * left;
  return Relegated(worker, sequence, deadline, now) ? key + options_.relegate_s : key;
}

bool EdfPolicy::Relegated(const WorkerView& worker, const SequenceView& sequence, double deadline,
                          Time now) const {
  if (options_.relegate_s == 0 || !sequence.first_scheduled.is_never()) return false;
  const int32_t left = sequence.tokens_to_compute() - sequence.cached_tokens;
  double takes = 0;
  if (worker.cost != nullptr) {
    StepShape shape;
    shape.AddChunk(sequence.cached_tokens, left);
    takes = worker.cost->Predict(shape).seconds();
  } else if (const double rate = pace_.prefill_rate(); rate > 0) {
    takes = left / rate;
  }
  return now.seconds() + takes > deadline;
}

double EdfPolicy::LeastSlack(const WorkerView& worker, Time now) const {
  double least = std::numeric_limits<double>::infinity();
  for (const SequenceView& sequence : worker.running) {
    if (!sequence.is_decode()) continue;
    // In flight the first token is not known yet: it comes now.
    double base = sequence.first_token.is_never() ? now.seconds() : sequence.first_token.seconds();
    if (options_.bank) base = std::max(base, FirstToken(worker, sequence));
    double due = base + slo_.Tpot(sequence) * sequence.num_generated;
    // Whatever its pace: then the request ends.
    if (!sequence.deadline.is_never()) due = std::min(due, sequence.deadline.seconds());
    least = std::min(least, due - now.seconds());
  }
  return least;
}

int32_t EdfPolicy::StepTokens(const WorkerView& worker, double slack) const {
  const int32_t limit = worker.limits.max_step_tokens;
  if (!options_.dynamic_chunk || worker.cost == nullptr) return limit;
  StepShape decodes;
  int32_t context = 0;  // of the first prompt in line, as far as it is known
  for (const SequenceView& sequence : worker.running) {
    if (sequence.tokens_to_compute() == 1) {
      decodes.AddDecode(sequence.num_tokens);
    } else if (context == 0) {
      context = sequence.num_computed;
    }
  }
  const bool low = worker.blocks_free < options_.low_kv * worker.blocks_total;
  const int32_t most = std::min({limit, options_.max_tokens, low ? kLowKvTokens : limit});
  const int32_t least = std::min(most, options_.min_tokens);
  for (int32_t tokens = most; tokens > least; tokens = (tokens - 1) / kTile * kTile) {
    StepShape shape = decodes;
    if (tokens > decodes.decodes) shape.AddChunk(context, tokens - decodes.decodes);
    if (options_.margin * worker.cost->Predict(shape).seconds() <= slack) return tokens;
  }
  // More decodes than that must not keep prompts out for good.
  return std::max(least, decodes.decodes + options_.min_tokens / 4);
}

}  // namespace orrery
