#include "engine/model_executor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/plan_error.h"
#include "scheduler/base/check.h"

namespace orrery {
ModelExecutor::ModelExecutor(std::unique_ptr<Backend> backend, std::unique_ptr<Decoder> decoder, KvPool pool,
                             const EngineLimits& limits)
    : backend_(std::move(backend)),
      decoder_(std::move(decoder)),
      pool_(std::move(pool)),
      limits_(limits),
      slots_(static_cast<size_t>(limits.max_num_seqs)),
      steps_(static_cast<size_t>(backend_->max_in_flight())),
      last_sample_(static_cast<size_t>(limits.max_num_seqs)) {
  const auto seqs = static_cast<size_t>(limits.max_num_seqs);
  for (Step& step : steps_) {
    step.ids.reserve(static_cast<size_t>(limits.max_step_tokens));
    if (steps_.size() > 1) step.sources.reserve(static_cast<size_t>(limits.max_step_tokens));
    step.slices.reserve(seqs);
    step.block_tables.reserve(seqs * static_cast<size_t>(limits.max_context / limits.block_tokens + 1));
    step.sampled_rows.reserve(seqs);
    step.sampled_slots.reserve(seqs);
    step.rules.reserve(seqs);
    step.samples.reserve(seqs);
  }
}

absl::Status ModelExecutor::CheckPlan(const StepPlan& plan) const {
  if (launched_ - waited_ == steps_.size()) {
    return PlanError(plan, absl::StrCat("at most ", steps_.size(), " steps can be in flight"));
  }
  if (!plan.kv_loads.empty() || !plan.kv_sends.empty() || !plan.expert_moves.empty()) {
    return PlanError(plan, "KV transfers and expert moves need a communicator");
  }
  const auto slots = static_cast<uint32_t>(limits_.max_num_seqs);
  for (const uint32_t slot : plan.released_slots) {
    if (slot >= slots) return PlanError(plan, absl::StrCat("released slot ", slot, " of ", slots));
  }
  for (const AdmittedSequence& admitted : plan.admitted) {
    if (admitted.slot >= slots)
      return PlanError(plan, absl::StrCat("admitted slot ", admitted.slot, " of ", slots));
    const Submit* submit = admitted.submit.get();
    if (submit == nullptr || submit->tokens == nullptr || submit->tokens->empty() ||
        submit->tokens->size() > static_cast<size_t>(limits_.max_context)) {
      return PlanError(plan,
                       absl::StrCat("admitted sequence must have 1 to ", limits_.max_context, " tokens"));
    }
    for (const TokenId token : *submit->tokens) {
      if (token < 0 || token >= limits_.vocab_size) {
        return PlanError(plan, absl::StrCat("token id ", token, " is not in [0, ", limits_.vocab_size, ")"));
      }
    }
  }
  for (const BlockCopy& copy : plan.copies) {
    if (Value(copy.from) < 0 || Value(copy.from) >= limits_.num_blocks || Value(copy.to) < 0 ||
        Value(copy.to) >= limits_.num_blocks) {
      return PlanError(plan, "block copy outside the pool");
    }
  }
  if (plan.slices.size() > slots || plan.num_tokens > limits_.max_step_tokens ||
      (!plan.slices.empty() && plan.block_begin.size() != plan.slices.size() + 1)) {
    return PlanError(plan, absl::StrCat(plan.slices.size(), " slices and ", plan.num_tokens,
                                        " tokens, at most ", slots, " and ", limits_.max_step_tokens));
  }
  return absl::OkStatus();
}

int32_t ModelExecutor::Pending(uint32_t slot) const {
  if (launched_ == waited_) return 0;
  const std::vector<uint32_t>& sampled = steps_[(launched_ - 1) % steps_.size()].sampled_slots;
  const auto last = static_cast<size_t>(last_sample_[slot]);
  return last < sampled.size() && sampled[last] == slot ? 1 : 0;
}

// After admissions: the slice against the state of its slot.
absl::Status ModelExecutor::CheckSlice(const StepPlan& plan, size_t index) const {
  const Slice& slice = plan.slices[index];
  const auto problem = [&](absl::string_view what) {
    return PlanError(plan, absl::StrCat("slice ", index, " ", what));
  };
  if (slice.slot >= slots_.size()) return problem("has no slot");
  const SlotState& state = slots_[slice.slot];
  if (!state.active() || state.id() != slice.sequence)
    return problem("is of a sequence that was not admitted");
  const bool ahead = slice.input == InputSource::kPreviousStep;
  const int32_t pending = Pending(slice.slot);
  if (ahead && (pending == 0 || slice.begin != state.num_tokens() || slice.count != 1)) {
    return problem("is not the token of the step in flight");
  }
  if (ahead && state.chooses_by_tokens()) return problem("has penalties of a token in flight");
  const int32_t tokens = state.num_tokens() + (ahead ? 1 : 0);
  if (slice.begin < 0 || slice.count < 1 || slice.count > tokens - slice.begin) {
    return problem(absl::StrCat("covers [", slice.begin, ", +", slice.count, ") of ", tokens, " tokens"));
  }
  const int32_t end = slice.begin + slice.count;
  if (end > limits_.max_context)
    return problem(absl::StrCat("reaches beyond ", limits_.max_context, " tokens"));
  if (slice.sample &&
      (end != state.num_tokens() + pending || slice.output_index != state.num_output() + pending)) {
    return problem("samples before its last token");
  }
  if (slice.num_scored != 0 && (slice.num_scored < 0 || state.num_prompt_logprobs() < 0 ||
                                slice.ScoredBegin(state.num_prompt()) < slice.begin)) {
    return problem(absl::StrCat("scores ", slice.num_scored, " rows"));
  }
  const int32_t first = plan.block_begin[index], last = plan.block_begin[index + 1];
  if (first < 0 || last < first || static_cast<size_t>(last) > plan.blocks.size() ||
      (last - first) * int64_t{limits_.block_tokens} < end) {
    return problem("has a short block table");
  }
  for (int32_t i = first; i < last; ++i) {
    const int32_t block = Value(plan.blocks[static_cast<size_t>(i)]);
    if (block < 0 || block >= limits_.num_blocks) return problem(absl::StrCat("uses block ", block));
  }
  return absl::OkStatus();
}

absl::Status ModelExecutor::Launch(const StepPlan& plan) {
  if (absl::Status status = CheckPlan(plan); !status.ok()) return status;
  for (const uint32_t slot : plan.released_slots) slots_[slot].Release();
  for (const AdmittedSequence& admitted : plan.admitted) {
    slots_[admitted.slot].Admit(admitted.sequence, admitted.submit, limits_.max_context);
  }
  const auto slots = static_cast<uint32_t>(slots_.size());
  for (const Slice& slice : plan.slices) {
    if (slice.slot < slots) slots_[slice.slot].Prefetch();
  }
  int64_t rows = 0;
  for (size_t i = 0; i < plan.slices.size(); ++i) {
    if (absl::Status status = CheckSlice(plan, i); !status.ok()) return status;
    rows += plan.slices[i].count;
  }
  if (rows > limits_.max_step_tokens) return PlanError(plan, "more rows than num_tokens says");
  Step& step = steps_[launched_ % steps_.size()];
  step.plan = &plan;
  GatherRows(plan, step);
  GatherScores(plan, step);
  ++launched_;
  Enqueue(step);
  return absl::OkStatus();
}

void ModelExecutor::GatherRows(const StepPlan& plan, Step& step) {
  step.ids.clear();
  step.sources.clear();
  step.slices.clear();
  step.sampled_rows.clear();
  step.sampled_slots.clear();
  step.block_tables.resize(plan.blocks.size());
  std::transform(plan.blocks.begin(), plan.blocks.end(), step.block_tables.begin(),
                 [](BlockId id) { return Value(id); });
  step.rules.clear();
  step.samples.clear();
  size_t num_top = 0;
  for (size_t i = 0; i < plan.slices.size(); ++i) {
    const Slice& slice = plan.slices[i];
    const SlotState& state = slots_[slice.slot];
    step.slices.push_back({.row_begin = static_cast<int32_t>(step.ids.size()),
                           .count = slice.count,
                           .position = slice.begin,
                           .slot = static_cast<int32_t>(slice.slot),
                           .block_table = step.block_tables.data() + plan.block_begin[i]});
    const bool ahead = slice.input == InputSource::kPreviousStep;
    if (ahead) {
      step.sources.resize(step.ids.size(), -1);
      step.sources.push_back(last_sample_[slice.slot]);
      step.ids.push_back(0);
    } else {
      for (int32_t p = slice.begin; p < slice.begin + slice.count; ++p) step.ids.push_back(state.token(p));
    }
    if (!slice.sample) continue;
    last_sample_[slice.slot] = static_cast<int32_t>(step.sampled_slots.size());
    step.sampled_rows.push_back(static_cast<int32_t>(step.ids.size()) - 1);
    step.sampled_slots.push_back(slice.slot);
    // Here, because the state is in a cache now; behind the layers it is not.
    step.rules.push_back(state.Rules(ahead ? 1 : 0));
    num_top += static_cast<size_t>(std::max(0, state.num_logprobs()));
  }
  if (!step.sources.empty()) step.sources.resize(step.ids.size(), -1);
  step.sampled_top.resize(num_top);
  TokenLogprob* top = step.sampled_top.data();
  for (const SampleArgs& rules : step.rules) {
    step.samples.push_back({.top = top});
    top += std::max(0, rules.num_logprobs);
  }
}

void ModelExecutor::GatherScores(const StepPlan& plan, Step& step) {
  step.scored_rows.clear();
  step.score_args.clear();
  step.scores.clear();
  if (plan.num_scoring == 0) return;
  size_t tops = 0;
  for (size_t i = 0; i < plan.slices.size(); ++i) {
    const Slice& slice = plan.slices[i];
    const SlotState& state = slots_[slice.slot];
    const int32_t num_top = std::min(state.num_prompt_logprobs(), limits_.vocab_size);
    const int32_t first = slice.ScoredBegin(state.num_prompt());
    for (int32_t position = first; position < first + slice.num_scored; ++position) {
      step.scored_rows.push_back(step.slices[i].row_begin + position - slice.begin);
      step.score_args.push_back({.id = state.token(position + 1), .num_top = num_top});
      tops += static_cast<size_t>(num_top);
    }
  }
  step.scored_top.resize(tops);
  TokenLogprob* top = step.scored_top.data();
  for (const ScoreArgs& args : step.score_args) {
    step.scores.push_back({.top = top});
    top += args.num_top;
  }
}

void ModelExecutor::Enqueue(Step& step) {
  const auto rows = static_cast<int64_t>(step.ids.size());
  const bool scores = !step.scored_rows.empty();
  const bool decode_only = step.sampled_rows.size() == step.ids.size() &&
                           step.slices.size() == step.ids.size() && !scores &&
                           rows <= backend_->max_logit_rows();
  backend_->BeginStep(
      {.ids = step.ids, .sources = step.sources, .slices = step.slices, .decode_only = decode_only});
  for (const BlockCopy& copy : step.plan->copies) {
    backend_->Copy(pool_.block(copy.to), pool_.block(copy.from), static_cast<size_t>(pool_.block_bytes()));
  }
  if (rows > 0) {
    decoder_->Forward(rows, !step.sampled_rows.empty() || scores, pool_.layers());
    EnqueueSamples(step);
    EnqueueScores(step);
  }
  backend_->EndStep();
}

void ModelExecutor::EnqueueSamples(Step& step) {
  const auto count = static_cast<int64_t>(step.sampled_rows.size());
  if (count > 0) decoder_->Select(step.sampled_rows);
  for (int64_t begin = 0; begin < count; begin += backend_->max_logit_rows()) {
    const int64_t rows = std::min(backend_->max_logit_rows(), count - begin);
    const Tensor logits = decoder_->Logits(begin, rows);
    if (observer_) {
      backend_->Synchronize();
      observer_(logits);
    }
    backend_->Sample(logits, absl::MakeConstSpan(step.rules).subspan(begin, rows),
                     step.samples.data() + begin);
  }
}

// What the step left behind the last attention is still there. Groups do not reach across slices.
void ModelExecutor::EnqueueScores(Step& step) {
  int64_t begin = 0;
  for (const Slice& slice : step.plan->slices) {
    for (const int64_t end = begin + slice.num_scored; begin < end;) {
      const int64_t rows = std::min(backend_->max_logit_rows(), end - begin);
      decoder_->Select(absl::MakeConstSpan(step.scored_rows).subspan(begin, rows));
      backend_->Score(decoder_->Logits(0, rows), absl::MakeConstSpan(step.score_args).subspan(begin, rows),
                      step.scores.data() + begin);
      begin += rows;
    }
  }
}

absl::Status ModelExecutor::Wait(StepId id, StepResult* result) {
  const Step& step = steps_[waited_ % steps_.size()];
  if (waited_ == launched_ || step.plan->step != id) {
    return absl::InternalError(absl::StrCat("step ", Value(id), " is not the next in flight"));
  }
  ++waited_;
  result->Clear();
  result->step = id;
  if (absl::Status status = backend_->Wait(); !status.ok()) return status;
  FillSampled(step, result);
  FillScored(step, result);
  return absl::OkStatus();
}

void ModelExecutor::FillSampled(const Step& step, StepResult* result) {
  result->sampled.reserve(step.samples.size());
  for (const uint32_t slot : step.sampled_slots) slots_[slot].Prefetch();
  for (const uint32_t slot : step.sampled_slots) slots_[slot].PrefetchNext();
  for (size_t i = 0; i < step.samples.size(); ++i) {
    SlotState& state = slots_[step.sampled_slots[i]];
    const SampleResult& sample = step.samples[i];
    SampledToken& out = result->sampled.emplace_back();
    out.sequence = state.id();
    out.token = sample.token;
    if (sample.status == SampleRowStatus::kNotFinite) {
      out.status = SampleStatus::kNumericalError;
      continue;
    }
    if (step.rules[i].num_logprobs >= 0) {
      auto logprobs = std::make_shared<TokenLogprobs>();
      logprobs->chosen = sample.logprob;
      for (int32_t k = 0; k < sample.num_top; ++k) {
        logprobs->top.emplace_back(sample.top[k].id, sample.top[k].logprob);
      }
      out.logprobs = std::move(logprobs);
    }
    state.Append(sample.token);
  }
}

void ModelExecutor::FillScored(const Step& step, StepResult* result) const {
  const SampleResult* score = step.scores.data();
  for (const Slice& slice : step.plan->slices) {
    if (slice.num_scored == 0) continue;
    const SlotState& state = slots_[slice.slot];
    auto logprobs = std::make_shared<PromptLogprobs>();
    logprobs->begin = slice.ScoredBegin(state.num_prompt()) + 1;
    logprobs->num_top = std::min(state.num_prompt_logprobs(), limits_.vocab_size);
    logprobs->chosen.reserve(static_cast<size_t>(slice.num_scored));
    logprobs->top.reserve(static_cast<size_t>(slice.num_scored) * static_cast<size_t>(logprobs->num_top));
    ScoredPrompt& out = result->scored.emplace_back();
    out.sequence = slice.sequence;
    for (const SampleResult* const end = score + slice.num_scored; score != end; ++score) {
      if (score->status == SampleRowStatus::kNotFinite) out.status = SampleStatus::kNumericalError;
      logprobs->chosen.push_back(score->logprob);
      for (int32_t k = 0; k < score->num_top; ++k) {
        logprobs->top.emplace_back(score->top[k].id, score->top[k].logprob);
      }
    }
    if (out.status == SampleStatus::kOk) out.logprobs = std::move(logprobs);
  }
}

}  // namespace orrery
