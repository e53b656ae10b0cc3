// What an engine keeps of one admitted sequence: its tokens, and what its sampling rules have counted. Memory
// for its whole life is taken when it is admitted, so that a step allocates nothing.
#ifndef ORRERY_ENGINE_SEQUENCE_STATE_H_
#define ORRERY_ENGINE_SEQUENCE_STATE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kernels/cpu/sample.h"
#include "scheduler/base/ids.h"
#include "scheduler/types/request.h"

namespace orrery {

class SequenceState {
 public:
  // A step's weights push the states out of the caches: asking for all of a step's states at once, then for
  // what they point to, waits for memory once and not once for each line.
  void PrefetchSelf() const {
    for (size_t i = 0; i < sizeof(*this); i += 64) __builtin_prefetch(reinterpret_cast<const char*>(this) + i, 1);
  }
  void PrefetchContent() const {
    const auto* submit = reinterpret_cast<const char*>(submit_.get());
    for (size_t i = 0; submit != nullptr && i < sizeof(Submit); i += 64) __builtin_prefetch(submit + i);
    __builtin_prefetch(generated_.data() + generated_.size(), 1);
  }

  bool active() const { return submit_ != nullptr; }
  SequenceId id() const { return id_; }

  // `max_context` bounds what max_tokens may reserve. The submit must have tokens.
  void Admit(SequenceId id, std::shared_ptr<const Submit> submit, int32_t max_context);
  void Release();

  int32_t num_tokens() const { return num_given_ + static_cast<int32_t>(generated_.size()); }
  // Output ids so far, those of an earlier attempt included.
  int32_t num_output() const { return num_tokens() - submit_->num_prompt; }
  TokenId token(int32_t position) const {
    return position < num_given_ ? (*submit_->tokens)[static_cast<size_t>(position)]
                                 : generated_[static_cast<size_t>(position - num_given_)];
  }
  void Append(TokenId token);

  // Rules for the next token; valid until the next Append or Release. `top` has room for the alternatives
  // that the request wants to see.
  SampleArgs Rules() const;
  TokenLogprob* top() { return top_.data(); }

 private:
  void Count(TokenId token, int32_t output);

  SequenceId id_{};
  std::shared_ptr<const Submit> submit_;  // null: slot is free
  int32_t num_given_ = 0;
  std::vector<TokenId> generated_;
  std::vector<TokenCount> counts_;                  // distinct ids of prompt and output; only with penalties
  absl::flat_hash_map<TokenId, int32_t> count_of_;  // id -> index into counts_
  std::vector<TokenBias> bias_;
  std::vector<TokenLogprob> top_;
};

}  // namespace orrery

#endif  // ORRERY_ENGINE_SEQUENCE_STATE_H_
