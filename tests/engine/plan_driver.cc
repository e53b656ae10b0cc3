#include "tests/engine/plan_driver.h"

#include <algorithm>
#include <utility>

#include "scheduler/base/check.h"

namespace orrery::testing {

Sampling Greedy() {
  Sampling sampling;
  sampling.temperature = 0.0f;
  return sampling;
}

PlanDriver::PlanDriver(Executor& executor) : executor_(executor) {
  const EngineLimits& limits = executor.limits();
  for (int32_t i = limits.num_blocks - 1; i >= 0; --i) free_blocks_.push_back(BlockId{i});
  for (int32_t i = limits.max_num_seqs - 1; i >= 0; --i) free_slots_.push_back(static_cast<uint32_t>(i));
}

namespace {

// The next positions, as many as the slice asked for.
void AppendScored(const PromptLogprobs& part, const Slice& slice, PromptLogprobs* all) {
  ORRERY_CHECK(part.begin == 1 + static_cast<int32_t>(all->chosen.size()));
  ORRERY_CHECK(part.chosen.size() == static_cast<size_t>(slice.num_scored));
  ORRERY_CHECK(part.top.size() == part.chosen.size() * static_cast<size_t>(part.num_top));
  all->num_top = part.num_top;
  all->chosen.insert(all->chosen.end(), part.chosen.begin(), part.chosen.end());
  all->top.insert(all->top.end(), part.top.begin(), part.top.end());
}

}  // namespace

int PlanDriver::Add(std::vector<TokenId> tokens, int32_t max_tokens, const Sampling& sampling, StopRules stop,
                    int32_t num_emitted) {
  auto submit = std::make_shared<Submit>();
  submit->key = {.request = RequestId{next_sequence_}};
  submit->num_prompt = static_cast<int32_t>(tokens.size()) - num_emitted;
  submit->num_emitted = num_emitted;
  submit->tokens = std::make_shared<const std::vector<TokenId>>(std::move(tokens));
  submit->sampling = sampling;
  submit->stop = std::move(stop);
  submit->stop.max_tokens = max_tokens;
  Sequence sequence;
  sequence.id = SequenceId{next_sequence_++};
  ORRERY_CHECK(!free_slots_.empty());
  sequence.slot = free_slots_.back();
  free_slots_.pop_back();
  sequence.submit = std::move(submit);
  sequences_.emplace(next_handle_, std::move(sequence));
  return next_handle_++;
}

BlockId PlanDriver::TakeBlock() {
  ORRERY_CHECK(!free_blocks_.empty());
  const BlockId block = free_blocks_.back();
  free_blocks_.pop_back();
  return block;
}

void PlanDriver::Append(Sequence& sequence, int32_t count) {
  const int32_t block_tokens = executor_.limits().block_tokens;
  if (!sequence.admitted) {
    plan_.admitted.push_back({sequence.id, sequence.slot, sequence.submit});
    sequence.admitted = true;
  }
  Slice slice;
  slice.sequence = sequence.id;
  slice.slot = sequence.slot;
  slice.begin = sequence.computed;
  slice.count = std::min(count, sequence.num_tokens() - sequence.computed);
  slice.sample = slice.begin + slice.count == sequence.num_tokens();
  if (slice.sample) slice.output_index = sequence.num_tokens() - sequence.submit->num_prompt;
  if (sequence.submit->sampling.num_prompt_logprobs >= 0 && sequence.submit->num_emitted == 0) {
    const int32_t last = std::min(slice.begin + slice.count, sequence.submit->num_prompt - 1);
    slice.num_scored = std::max(0, last - static_cast<int32_t>(sequence.scored.chosen.size()));
  }
  const int32_t blocks = (slice.begin + slice.count + block_tokens - 1) / block_tokens;
  while (static_cast<int32_t>(sequence.blocks.size()) < blocks) sequence.blocks.push_back(TakeBlock());
  plan_.blocks.insert(plan_.blocks.end(), sequence.blocks.begin(), sequence.blocks.end());
  plan_.block_begin.push_back(static_cast<int32_t>(plan_.blocks.size()));
  plan_.num_tokens += slice.count;
  plan_.num_samples += slice.sample ? 1 : 0;
  plan_.num_scoring += slice.num_scored > 0 ? 1 : 0;
  plan_.slices.push_back(slice);
}

absl::Status PlanDriver::Step(const std::vector<std::pair<int, int32_t>>& work) {
  plan_.Clear();
  plan_.step = StepId{next_step_++};
  plan_.block_begin.push_back(0);
  plan_.released_slots = std::exchange(released_slots_, {});
  plan_.copies = std::exchange(copies_, {});
  for (const auto& [handle, count] : work) Append(sequences_.at(handle), count);
  if (absl::Status status = executor_.Launch(plan_); !status.ok()) return status;
  if (absl::Status status = executor_.Wait(plan_.step, &result_); !status.ok()) return status;
  ORRERY_CHECK(result_.step == plan_.step);
  size_t next = 0, next_scored = 0;
  for (size_t i = 0; i < work.size(); ++i) {
    Sequence& sequence = sequences_.at(work[i].first);
    const Slice& slice = plan_.slices[i];
    sequence.computed += slice.count;
    if (slice.num_scored > 0) {
      const ScoredPrompt& scored = result_.scored.at(next_scored++);
      ORRERY_CHECK(scored.sequence == sequence.id);
      sequence.failed = scored.status != SampleStatus::kOk;
      if (scored.logprobs != nullptr) AppendScored(*scored.logprobs, slice, &sequence.scored);
    }
    if (!slice.sample) continue;
    const SampledToken& sampled = result_.sampled.at(next++);
    ORRERY_CHECK(sampled.sequence == sequence.id);
    sequence.failed |= sampled.status != SampleStatus::kOk;
    if (sequence.failed) continue;
    sequence.output.push_back(sampled.token);
    sequence.sampled.push_back(sampled);
  }
  ORRERY_CHECK(next == result_.sampled.size() && next_scored == result_.scored.size());
  return absl::OkStatus();
}

absl::Status PlanDriver::RunAll(int32_t chunk) {
  while (true) {
    std::vector<std::pair<int, int32_t>> work;
    int32_t budget = executor_.limits().max_step_tokens;
    for (const bool decode : {true, false}) {
      for (auto& [handle, sequence] : sequences_) {
        const int32_t left = sequence.num_tokens() - sequence.computed;
        if (sequence.done() || (left == 1) != decode || budget == 0) continue;
        const int32_t count = std::min({chunk, left, budget});
        budget -= count;
        work.emplace_back(handle, count);
      }
    }
    if (work.empty()) return absl::OkStatus();
    if (absl::Status status = Step(work); !status.ok()) return status;
  }
}

void PlanDriver::Preempt(int handle) {
  Sequence& sequence = sequences_.at(handle);
  free_blocks_.insert(free_blocks_.end(), sequence.blocks.begin(), sequence.blocks.end());
  sequence.blocks.clear();
  sequence.computed = 0;
}

void PlanDriver::Release(int handle) {
  Preempt(handle);
  const Sequence& sequence = sequences_.at(handle);
  if (sequence.admitted) released_slots_.push_back(sequence.slot);
  free_slots_.push_back(sequence.slot);
  sequences_.erase(handle);
}

}  // namespace orrery::testing
