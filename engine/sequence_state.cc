#include "engine/sequence_state.h"

#include <algorithm>
#include <utility>

#include "scheduler/base/random.h"

namespace orrery {

void SequenceState::Admit(SequenceId id, std::shared_ptr<const Submit> submit, int32_t max_context) {
  Release();
  id_ = id;
  submit_ = std::move(submit);
  num_given_ = static_cast<int32_t>(submit_->tokens->size());
  const int32_t left = std::max(0, std::min(max_context - num_given_, submit_->stop.max_tokens));
  generated_.reserve(static_cast<size_t>(left));
  const Sampling& sampling = submit_->sampling;
  for (const auto& [token, value] : sampling.logit_bias) bias_.push_back({.id = token, .value = value});
  top_.resize(static_cast<size_t>(std::max(0, sampling.num_logprobs)));
  if (!sampling.has_penalties()) return;
  count_of_.reserve(static_cast<size_t>(num_given_ + left));
  counts_.reserve(static_cast<size_t>(num_given_ + left));
  for (int32_t i = 0; i < num_given_; ++i) Count(token(i), i >= submit_->num_prompt ? 1 : 0);
}

void SequenceState::Release() {
  submit_.reset();
  generated_.clear();
  counts_.clear();
  count_of_.clear();
  bias_.clear();
  top_.clear();
}

void SequenceState::Count(TokenId token, int32_t output) {
  const auto [it, added] = count_of_.try_emplace(token, static_cast<int32_t>(counts_.size()));
  if (added) counts_.push_back({.id = token, .count = 0});
  counts_[static_cast<size_t>(it->second)].count += output;
}

void SequenceState::Append(TokenId token) {
  generated_.push_back(token);
  if (!counts_.empty()) Count(token, 1);  // there are some from the first token on, where penalties are
}

SampleArgs SequenceState::Rules() const {
  const Sampling& sampling = submit_->sampling;
  SampleArgs args;
  args.temperature = sampling.temperature;
  args.top_k = sampling.top_k;
  args.top_p = sampling.top_p;
  args.min_p = sampling.min_p;
  args.presence_penalty = sampling.presence_penalty;
  args.frequency_penalty = sampling.frequency_penalty;
  args.repetition_penalty = sampling.repetition_penalty;
  args.counts = counts_.data();
  args.num_counts = static_cast<int32_t>(counts_.size());
  args.bias = bias_.data();
  args.num_bias = static_cast<int32_t>(bias_.size());
  if (num_output() < submit_->stop.min_tokens) {
    args.masked = submit_->stop.stop_ids.data();
    args.num_masked = static_cast<int32_t>(submit_->stop.stop_ids.size());
  }
  args.uniform = UniformAt(sampling.seed, static_cast<uint64_t>(num_output()));
  args.num_logprobs = sampling.num_logprobs;
  return args;
}

}  // namespace orrery
