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
      slots_(static_cast<size_t>(limits.max_num_seqs)) {
  const auto seqs = static_cast<size_t>(limits.max_num_seqs);
  ids_.reserve(static_cast<size_t>(limits.max_step_tokens));
  slices_.reserve(seqs);
  block_tables_.reserve(seqs * static_cast<size_t>(limits.max_context / limits.block_tokens + 1));
  sampled_rows_.reserve(seqs);
  sampled_slots_.reserve(seqs);
  rules_.reserve(seqs);
  samples_.reserve(seqs);
}

absl::Status ModelExecutor::CheckPlan(const StepPlan& plan) const {
  if (plan_ != nullptr) return PlanError(plan, "another step is in flight");
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
  if (slice.begin < 0 || slice.count < 1 || slice.count > state.num_tokens() - slice.begin) {
    return problem(
        absl::StrCat("covers [", slice.begin, ", +", slice.count, ") of ", state.num_tokens(), " tokens"));
  }
  const int32_t end = slice.begin + slice.count;
  if (slice.sample && (end != state.num_tokens() || slice.output_index != state.num_output())) {
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
  GatherRows(plan);
  plan_ = &plan;
  return absl::OkStatus();
}

void ModelExecutor::GatherRows(const StepPlan& plan) {
  ids_.clear();
  slices_.clear();
  sampled_rows_.clear();
  sampled_slots_.clear();
  block_tables_.resize(plan.blocks.size());
  std::transform(plan.blocks.begin(), plan.blocks.end(), block_tables_.begin(),
                 [](BlockId id) { return Value(id); });
  rules_.clear();
  samples_.clear();
  for (size_t i = 0; i < plan.slices.size(); ++i) {
    const Slice& slice = plan.slices[i];
    SlotState& state = slots_[slice.slot];
    slices_.push_back({.row_begin = static_cast<int32_t>(ids_.size()),
                       .count = slice.count,
                       .position = slice.begin,
                       .block_table = block_tables_.data() + plan.block_begin[i]});
    for (int32_t p = slice.begin; p < slice.begin + slice.count; ++p) ids_.push_back(state.token(p));
    if (!slice.sample) continue;
    sampled_rows_.push_back(static_cast<int32_t>(ids_.size()) - 1);
    sampled_slots_.push_back(slice.slot);
    // Here, because the state is in a cache now; behind the layers it is not.
    rules_.push_back(state.Rules());
    samples_.push_back({.top = state.top()});
  }
}

absl::Status ModelExecutor::Wait(StepId step, StepResult* result) {
  if (plan_ == nullptr || plan_->step != step) {
    return absl::InternalError(absl::StrCat("step ", Value(step), " was not launched"));
  }
  const StepPlan& plan = *std::exchange(plan_, nullptr);
  result->Clear();
  result->step = step;
  for (const BlockCopy& copy : plan.copies) {
    backend_->Copy(pool_.block(copy.to), pool_.block(copy.from), static_cast<size_t>(pool_.block_bytes()));
  }
  if (plan.slices.empty()) return backend_->Synchronize();
  const bool samples = !sampled_rows_.empty();
  const bool decode_only = sampled_rows_.size() == ids_.size() && slices_.size() == ids_.size() &&
                           plan.num_scoring == 0 && static_cast<int64_t>(ids_.size()) <= kLogitRows;
  backend_->BeginStep({.ids = ids_, .slices = slices_, .decode_only = decode_only});
  decoder_->Forward(static_cast<int64_t>(ids_.size()), samples || plan.num_scoring > 0, pool_.layers());
  if (samples) decoder_->Select(sampled_rows_);
  if (absl::Status status = SampleAll(); !status.ok()) return status;
  if (absl::Status status = backend_->Synchronize(); !status.ok()) return status;
  FillResult(result);
  return plan.num_scoring > 0 ? ScorePrompts(plan, result) : absl::OkStatus();
}

absl::Status ModelExecutor::SampleAll() {
  const auto count = static_cast<int64_t>(sampled_rows_.size());
  for (int64_t begin = 0; begin < count; begin += kLogitRows) {
    const int64_t rows = std::min(kLogitRows, count - begin);
    const Tensor logits = decoder_->Logits(begin, rows);
    if (observer_) {
      if (absl::Status status = backend_->Synchronize(); !status.ok()) return status;
      observer_(logits);
    }
    backend_->Sample(logits, absl::MakeConstSpan(rules_).subspan(begin, rows), samples_.data() + begin);
  }
  return absl::OkStatus();
}

void ModelExecutor::FillResult(StepResult* result) {
  result->sampled.reserve(samples_.size());
  for (const uint32_t slot : sampled_slots_) slots_[slot].Prefetch();
  for (const uint32_t slot : sampled_slots_) slots_[slot].PrefetchNext();
  for (size_t i = 0; i < samples_.size(); ++i) {
    SlotState& state = slots_[sampled_slots_[i]];
    const SampleResult& sample = samples_[i];
    SampledToken& out = result->sampled.emplace_back();
    out.sequence = state.id();
    out.token = sample.token;
    if (sample.status == SampleRowStatus::kNotFinite) {
      out.status = SampleStatus::kNumericalError;
      continue;
    }
    if (rules_[i].num_logprobs >= 0) {
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

absl::Status ModelExecutor::ScorePrompts(const StepPlan& plan, StepResult* result) {
  for (size_t i = 0; i < plan.slices.size(); ++i) {
    if (plan.slices[i].num_scored == 0) continue;
    if (absl::Status status = ScoreSlice(plan, i, &result->scored.emplace_back()); !status.ok())
      return status;
  }
  return absl::OkStatus();
}

// What the step left behind the last attention is still there.
absl::Status ModelExecutor::ScoreSlice(const StepPlan& plan, size_t index, ScoredPrompt* out) {
  const Slice& slice = plan.slices[index];
  const SlotState& state = slots_[slice.slot];
  const int32_t first = slice.ScoredBegin(state.num_prompt());
  const auto rows = static_cast<size_t>(slice.num_scored);
  auto logprobs = std::make_shared<PromptLogprobs>();
  logprobs->begin = first + 1;
  logprobs->num_top = std::min(state.num_prompt_logprobs(), limits_.vocab_size);
  logprobs->chosen.reserve(rows);
  logprobs->top.reserve(rows * static_cast<size_t>(logprobs->num_top));
  out->sequence = slice.sequence;
  for (int32_t done = 0; done < slice.num_scored; done += static_cast<int32_t>(scores_.size())) {
    const int32_t position = first + done;
    const auto count = static_cast<int32_t>(std::min<int64_t>(slice.num_scored - done, kLogitRows));
    if (absl::Status status =
            ScoreGroup(slices_[index].row_begin + position - slice.begin, position, count, state);
        !status.ok()) {
      return status;
    }
    for (const SampleResult& score : scores_) {
      if (score.status == SampleRowStatus::kNotFinite) {
        out->status = SampleStatus::kNumericalError;
        return absl::OkStatus();
      }
      logprobs->chosen.push_back(score.logprob);
      for (int32_t k = 0; k < score.num_top; ++k) {
        logprobs->top.emplace_back(score.top[k].id, score.top[k].logprob);
      }
    }
  }
  out->logprobs = std::move(logprobs);
  return absl::OkStatus();
}

// Rows [row, row + count) of the step, which are of the positions from `position` on.
absl::Status ModelExecutor::ScoreGroup(int32_t row, int32_t position, int32_t count, const SlotState& state) {
  const int32_t num_top = std::min(state.num_prompt_logprobs(), limits_.vocab_size);
  scored_rows_.clear();
  score_args_.clear();
  scores_.clear();
  score_top_.resize(static_cast<size_t>(count) * static_cast<size_t>(num_top));
  for (int32_t i = 0; i < count; ++i) {
    scored_rows_.push_back(row + i);
    score_args_.push_back({.id = state.token(position + i + 1), .num_top = num_top});
    scores_.push_back({.top = score_top_.data() + static_cast<ptrdiff_t>(i) * num_top});
  }
  decoder_->Select(scored_rows_);
  backend_->Score(decoder_->Logits(0, count), score_args_, scores_.data());
  return backend_->Synchronize();
}

}  // namespace orrery
