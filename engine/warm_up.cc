#include "engine/warm_up.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

namespace orrery {
namespace {

class Steps {
 public:
  explicit Steps(Executor& executor) : executor_(executor), limits_(executor.limits()) {}

  // One step of `sequences` prompts of `tokens` tokens each, whose next tokens are sampled.
  absl::Status Run(int32_t sequences, int32_t tokens) {
    plan_.Clear();
    plan_.step = StepId{++steps_};
    plan_.released_slots = std::exchange(slots_, {});
    plan_.block_begin.push_back(0);
    auto submit = std::make_shared<Submit>();
    submit->tokens = std::make_shared<const std::vector<TokenId>>(static_cast<size_t>(tokens), 0);
    submit->num_prompt = tokens;
    submit->sampling.temperature = 0.0f;
    submit->stop.max_tokens = 1;
    int32_t next_block = 0;
    for (int32_t i = 0; i < sequences; ++i) {
      const auto slot = static_cast<uint32_t>(i);
      plan_.admitted.push_back({SequenceId{++sequences_}, slot, submit});
      plan_.slices.push_back(
          {.sequence = SequenceId{sequences_}, .slot = slot, .count = tokens, .sample = true});
      for (int32_t block = 0; block < BlocksOf(tokens); ++block)
        plan_.blocks.push_back(BlockId{next_block++});
      plan_.block_begin.push_back(static_cast<int32_t>(plan_.blocks.size()));
      slots_.push_back(slot);
    }
    plan_.num_tokens = sequences * tokens;
    plan_.num_samples = sequences;
    return Step();
  }
  absl::Status Release() {
    plan_.Clear();
    plan_.step = StepId{++steps_};
    plan_.released_slots = std::exchange(slots_, {});
    return Step();
  }

  bool Fits(int64_t sequences, int64_t tokens) const {
    return sequences <= limits_.max_num_seqs && tokens <= limits_.max_context &&
           sequences * tokens <= limits_.max_step_tokens &&
           sequences * BlocksOf(static_cast<int32_t>(tokens)) <= limits_.num_blocks;
  }

 private:
  int32_t BlocksOf(int32_t tokens) const {
    return (tokens + limits_.block_tokens - 1) / limits_.block_tokens;
  }
  absl::Status Step() {
    if (absl::Status status = executor_.Launch(plan_); !status.ok()) return status;
    return executor_.Wait(plan_.step, &result_);
  }

  Executor& executor_;
  const EngineLimits& limits_;
  StepPlan plan_;
  StepResult result_;
  std::vector<uint32_t> slots_;  // taken by the last step
  uint64_t steps_ = 0, sequences_ = 0;
};

// From the first, doubled each time; the last is the most there can be.
std::vector<int32_t> SizesUpTo(int32_t first, int32_t most) {
  std::vector<int32_t> sizes;
  for (int64_t size = first; size < most; size *= 2) sizes.push_back(static_cast<int32_t>(size));
  if (first <= most) sizes.push_back(most);
  return sizes;
}

}  // namespace

absl::Status WarmUp(Executor& executor) {
  Steps steps(executor);
  const EngineLimits& limits = executor.limits();
  absl::Status status;
  for (const int32_t sequences : SizesUpTo(1, limits.max_num_seqs)) {
    // The second time a backend that records steps does so.
    for (int time = 0; time < 2 && status.ok() && steps.Fits(sequences, 1); ++time) {
      status = steps.Run(sequences, 1);
    }
  }
  for (const int32_t rows : SizesUpTo(2, limits.max_step_tokens)) {
    const int32_t sequences = (rows + limits.max_context - 1) / limits.max_context;
    if (status.ok() && steps.Fits(sequences, rows / sequences))
      status = steps.Run(sequences, rows / sequences);
  }
  status.Update(steps.Release());
  return status;
}

}  // namespace orrery
