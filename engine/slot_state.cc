#include "engine/slot_state.h"

#include <algorithm>
#include <utility>

#include "scheduler/base/random.h"

namespace orrery {

namespace {

// The rules of a request, without its tokens'.
SampleArgs RulesOf(const Sampling& sampling) {
  SampleArgs rules;
  rules.temperature = sampling.temperature;
  rules.top_k = sampling.top_k;
  rules.top_p = sampling.top_p;
  rules.min_p = sampling.min_p;
  rules.presence_penalty = sampling.presence_penalty;
  rules.frequency_penalty = sampling.frequency_penalty;
  rules.repetition_penalty = sampling.repetition_penalty;
  rules.num_logprobs = sampling.num_logprobs;
  return rules;
}

}  // namespace

void SlotState::Admit(SequenceId id, std::shared_ptr<const Submit> submit, int32_t max_context) {
  Release();
  id_ = id;
  submit_ = std::move(submit);
  num_tokens_ = static_cast<int32_t>(submit_->tokens->size());
  num_prompt_ = submit_->num_prompt;
  last_token_ = submit_->tokens->back();
  const int32_t left = std::max(0, std::min(max_context - num_tokens_, submit_->stop.max_tokens));
  generated_.reserve(static_cast<size_t>(left));
  const Sampling& sampling = submit_->sampling;
  for (const auto& [token, value] : sampling.logit_bias) bias_.push_back({.id = token, .value = value});
  rules_ = RulesOf(sampling);
  rules_.bias = bias_.data();
  rules_.num_bias = static_cast<int32_t>(bias_.size());
  rules_.masked = submit_->stop.stop_ids.data();
  rules_.num_masked = static_cast<int32_t>(submit_->stop.stop_ids.size());
  min_tokens_ = submit_->stop.min_tokens;
  seed_ = sampling.seed;
  counting_ = sampling.has_penalties();
  if (!counting_) return;
  count_of_.reserve(static_cast<size_t>(num_tokens_ + left));
  counts_.reserve(static_cast<size_t>(num_tokens_ + left));
  for (int32_t i = 0; i < num_tokens_; ++i) Count(token(i), i >= num_prompt_ ? 1 : 0);
}

void SlotState::Release() {
  submit_.reset();
  generated_.clear();
  counts_.clear();
  count_of_.clear();
  bias_.clear();
}

void SlotState::Count(TokenId token, int32_t output) {
  const auto [it, added] = count_of_.try_emplace(token, static_cast<int32_t>(counts_.size()));
  if (added) counts_.push_back({.id = token, .count = 0});
  counts_[static_cast<size_t>(it->second)].count += output;
}

void SlotState::Append(TokenId token) {
  generated_.push_back(token);
  last_token_ = token;
  ++num_tokens_;
  if (counting_) Count(token, 1);
}

SampleArgs SlotState::Rules(int32_t pending) const {
  SampleArgs rules = rules_;
  if (counting_) {
    rules.counts = counts_.data();
    rules.num_counts = static_cast<int32_t>(counts_.size());
  }
  const int32_t output = num_output() + pending;
  if (output >= min_tokens_) rules.num_masked = 0;
  if (rules.temperature != 0) rules.uniform = UniformAt(seed_, static_cast<uint64_t>(output));
  return rules;
}

}  // namespace orrery
