#include "engine/fake_executor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/plan_error.h"

namespace orrery {
namespace {

uint64_t Chain(uint64_t parent, uint64_t token) {
  uint64_t x = (parent ^ (token + 0x9E3779B97F4A7C15u)) * 0xBF58476D1CE4E5B9u;
  x ^= x >> 29;
  return x * 0x94D049BB133111EBu | 1;  // never 0: that is a place nobody wrote
}

}  // namespace

FakeExecutor::FakeExecutor(FakeExecutorOptions options)
    : options_(std::move(options)),
      slots_(static_cast<size_t>(options_.limits.max_num_seqs)),
      pool_(static_cast<size_t>(options_.limits.num_blocks) *
            static_cast<size_t>(options_.limits.block_tokens)) {}

void FakeExecutor::Extend(Slot& slot, TokenId token) {
  slot.prefix_hashes.push_back(Chain(slot.prefix_hashes.back(), static_cast<uint64_t>(token)));
}

absl::Status FakeExecutor::ApplyMembership(const StepPlan& plan) {
  for (const uint32_t index : plan.released_slots) {
    if (index >= slots_.size() || slots_[index].submit == nullptr) {
      return PlanError(plan, absl::StrCat("releases slot ", index, ", which is free"));
    }
    slots_[index] = {};
    --active_;
  }
  for (const AdmittedSequence& admitted : plan.admitted) {
    if (admitted.slot >= slots_.size() || slots_[admitted.slot].submit != nullptr ||
        admitted.submit == nullptr) {
      return PlanError(plan, absl::StrCat("admits into slot ", admitted.slot, ", which is not free"));
    }
    Slot& slot = slots_[admitted.slot];
    slot.id = admitted.sequence;
    slot.submit = admitted.submit;
    slot.prefix_hashes = {1 + admitted.submit->cache_salt};
    ++active_;
    const Submit& submit = *admitted.submit;
    const int32_t given = submit.num_prompt + submit.num_emitted;
    const bool known = submit.tokens != nullptr && !submit.tokens->empty();
    if (given < 1 || (known && submit.tokens->size() != static_cast<size_t>(given))) {
      return PlanError(plan, "admits a sequence whose tokens are not num_prompt + num_emitted");
    }
    for (int32_t i = 0; i < given; ++i) {
      // Without ids (simulation) every sequence has a prompt of its own.
      Extend(slot, known ? submit.tokens->at(static_cast<size_t>(i))
                         : TokenAt(submit.key, -1 - i, options_.limits.vocab_size));
    }
  }
  return absl::OkStatus();
}

uint64_t& FakeExecutor::Place(const StepPlan& plan, size_t slice, int32_t position) {
  const auto block_tokens = options_.limits.block_tokens;
  const auto entry = static_cast<size_t>(plan.block_begin[slice] + position / block_tokens);
  const auto block = static_cast<size_t>(Value(plan.blocks[entry]));
  return pool_[block * static_cast<size_t>(block_tokens) + static_cast<size_t>(position % block_tokens)];
}

// False where the rows are not the next ones, or some are missing before the first token.
bool FakeExecutor::ScoreSlice(const Slice& slice, Slot& slot, StepResult* result) {
  const Submit& submit = *slot.submit;
  if (submit.sampling.num_prompt_logprobs < 0 || submit.num_emitted > 0) return slice.num_scored == 0;
  if (slice.num_scored > 0) {
    const int32_t first = slice.ScoredBegin(submit.num_prompt);
    if (first != slot.num_scored || first < slice.begin) return false;
    slot.num_scored += slice.num_scored;
    auto logprobs = std::make_shared<PromptLogprobs>();
    logprobs->begin = first + 1;
    logprobs->chosen.resize(static_cast<size_t>(slice.num_scored));
    ScoredPrompt& scored = result->scored.emplace_back();
    scored.sequence = slice.sequence;
    scored.logprobs = std::move(logprobs);
  }
  return !slice.sample || slot.num_scored == submit.num_prompt - 1;
}

absl::Status FakeExecutor::RunSlice(const StepPlan& plan, size_t index, StepResult* result) {
  const Slice& slice = plan.slices[index];
  const auto problem = [&](absl::string_view what) {
    return PlanError(plan, absl::StrCat("slice ", index, " of sequence ", Value(slice.sequence), " ", what));
  };
  if (slice.slot >= slots_.size() || slots_[slice.slot].submit == nullptr ||
      slots_[slice.slot].id != slice.sequence) {
    return problem("was not admitted");
  }
  Slot& slot = slots_[slice.slot];
  const int32_t end = slice.begin + slice.count;
  if (slice.begin < 0 || slice.count < 1 || end > slot.known()) {
    return problem(absl::StrCat("covers [", slice.begin, ", ", end, ") of ", slot.known(), " tokens"));
  }
  const int32_t table = plan.block_begin[index + 1] - plan.block_begin[index];
  if (table * int64_t{options_.limits.block_tokens} < end) return problem("has a short block table");
  for (int32_t i = plan.block_begin[index]; i < plan.block_begin[index + 1]; ++i) {
    const int32_t block = Value(plan.blocks[static_cast<size_t>(i)]);
    if (block < 0 || block >= options_.limits.num_blocks) return problem(absl::StrCat("uses block ", block));
  }
  for (int32_t p = 0; p < slice.begin; ++p) {
    if (Place(plan, index, p) != slot.prefix_hashes[static_cast<size_t>(p) + 1]) {
      return problem(absl::StrCat("finds a foreign prefix in its blocks at position ", p));
    }
  }
  for (int32_t p = slice.begin; p < end; ++p) {
    Place(plan, index, p) = slot.prefix_hashes[static_cast<size_t>(p) + 1];
  }
  if (!ScoreSlice(slice, slot, result)) {
    return problem(absl::StrCat("scores ", slice.num_scored, " rows behind ", slot.num_scored));
  }
  if (!slice.sample) return absl::OkStatus();
  const int32_t output_index = slot.known() - slot.submit->num_prompt;
  if (end != slot.known()) return problem("samples before its last token");
  if (slice.output_index != output_index) {
    return problem(absl::StrCat("says output index ", slice.output_index, ", is ", output_index));
  }
  SampledToken& sampled = result->sampled.emplace_back();
  const SampleKey& key = slot.submit->key;
  sampled.sequence = slice.sequence;
  if (options_.numerical_error && options_.numerical_error(key, output_index)) {
    sampled.status = SampleStatus::kNumericalError;
    return absl::OkStatus();
  }
  sampled.token = options_.token ? options_.token(key, output_index)
                                 : TokenAt(key, output_index, options_.limits.vocab_size);
  if (slot.submit->sampling.num_logprobs >= 0) sampled.logprobs = std::make_shared<TokenLogprobs>();
  Extend(slot, sampled.token);
  return absl::OkStatus();
}

absl::Status FakeExecutor::Launch(const StepPlan& plan) {
  if (static_cast<int>(in_flight_.size()) >= options_.max_in_flight)
    return PlanError(plan, "too many steps in flight");
  if (options_.fail_launch) {
    if (absl::Status fault = options_.fail_launch(plan); !fault.ok()) return fault;
  }
  if (absl::Status status = ApplyMembership(plan); !status.ok()) return status;
  if (!plan.slices.empty() && plan.block_begin.size() != plan.slices.size() + 1) {
    return PlanError(plan, "block_begin does not fit the slices");
  }
  for (const BlockCopy& copy : plan.copies) {
    for (int32_t i = 0; i < options_.limits.block_tokens; ++i) {
      const auto at = [&](BlockId id) {
        return static_cast<size_t>(Value(id)) * static_cast<size_t>(options_.limits.block_tokens) +
               static_cast<size_t>(i);
      };
      pool_.at(at(copy.to)) = pool_.at(at(copy.from));
    }
  }
  InFlight& step = in_flight_.emplace_back(InFlight{.plan = &plan, .result = {}});
  step.result.step = plan.step;
  int64_t tokens = 0;
  for (size_t i = 0; i < plan.slices.size(); ++i) {
    absl::Status status = RunSlice(plan, i, &step.result);
    if (!status.ok()) {
      in_flight_.pop_back();
      return status;
    }
    tokens += plan.slices[i].count;
  }
  if (tokens != plan.num_tokens || tokens > options_.limits.max_step_tokens ||
      static_cast<int32_t>(step.result.sampled.size()) != plan.num_samples ||
      static_cast<int32_t>(step.result.scored.size()) != plan.num_scoring) {
    in_flight_.pop_back();
    return PlanError(
        plan, "num_tokens, num_samples or num_scoring does not count the slices, or is over the limit");
  }
  ++steps_;
  rows_ += tokens;
  return absl::OkStatus();
}

absl::Status FakeExecutor::Wait(StepId step, StepResult* result) {
  if (in_flight_.empty() || in_flight_.front().plan->step != step) {
    return absl::InternalError(absl::StrCat("step ", Value(step), " is not the next in flight"));
  }
  const InFlight done = std::move(in_flight_.front());
  in_flight_.pop_front();
  if (options_.fail_wait) {
    if (absl::Status fault = options_.fail_wait(*done.plan); !fault.ok()) return fault;
  }
  *result = done.result;
  return absl::OkStatus();
}

}  // namespace orrery
