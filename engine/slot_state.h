// What an engine keeps of one admitted sequence: its tokens, and what its sampling rules have counted. Memory
// for its whole life is taken when it is admitted, so that a step allocates nothing.
#ifndef ORRERY_ENGINE_SLOT_STATE_H_
#define ORRERY_ENGINE_SLOT_STATE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kernels/cpu/sample.h"
#include "scheduler/base/ids.h"
#include "scheduler/types/request.h"

namespace orrery {

// On lines of its own: what a decode step reads of it is the first three.
class alignas(64) SlotState {
 public:
  // A step's weights push the states out of the caches: asking for all of a step's states at once waits for
  // memory once and not once for each line.
  void Prefetch() const {
    for (size_t i = 0; i < kHotBytes; i += 64) {
      __builtin_prefetch(reinterpret_cast<const std::byte*>(this) + i, 1);
    }
  }

  // Then where the next token goes.
  void PrefetchNext() const { __builtin_prefetch(generated_.data() + generated_.size(), 1); }

  bool active() const { return submit_ != nullptr; }
  SequenceId id() const { return id_; }

  // `max_context` bounds what max_tokens may reserve. The submit must have tokens.
  void Admit(SequenceId id, std::shared_ptr<const Submit> submit, int32_t max_context);
  void Release();

  int32_t num_tokens() const { return num_tokens_; }
  // Output ids so far, those of an earlier attempt included.
  int32_t num_output() const { return num_tokens_ - num_prompt_; }
  int32_t num_prompt() const { return num_prompt_; }
  // Alternatives wanted for each prompt token but the first; -1: not even its own log-probability.
  int32_t num_prompt_logprobs() const { return submit_->sampling.num_prompt_logprobs; }
  TokenId token(int32_t position) const {
    if (position == num_tokens_ - 1) return last_token_;
    const std::vector<TokenId>& given = *submit_->tokens;
    const auto index = static_cast<size_t>(position);
    return index < given.size() ? given[index] : generated_[index - given.size()];
  }
  void Append(TokenId token);

  // Rules for the token behind all that are known and `pending` that are on their way, which is 0 where
  // chooses_by_tokens(); valid until the next Append or Release.
  SampleArgs Rules(int32_t pending) const;
  // How a token is chosen depends on those before it.
  bool chooses_by_tokens() const { return counting_; }
  int32_t num_logprobs() const { return rules_.num_logprobs; }

 private:
  static constexpr size_t kHotBytes = 192;
  void Count(TokenId token, int32_t output);

  SequenceId id_{};
  std::shared_ptr<const Submit> submit_;  // null: slot is free
  int32_t num_tokens_ = 0;
  int32_t num_prompt_ = 0;
  TokenId last_token_ = 0;
  bool counting_ = false;  // with penalties
  std::vector<TokenId> generated_;
  SampleArgs rules_;  // but for what depends on the tokens so far
  int32_t min_tokens_ = 0;
  uint64_t seed_ = 0;

  std::vector<TokenCount> counts_;                  // distinct ids of prompt and output
  absl::flat_hash_map<TokenId, int32_t> count_of_;  // id -> index into counts_
  std::vector<TokenBias> bias_;
};

}  // namespace orrery

#endif  // ORRERY_ENGINE_SLOT_STATE_H_
