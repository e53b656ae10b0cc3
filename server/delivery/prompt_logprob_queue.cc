#include "server/delivery/prompt_logprob_queue.h"

#include <algorithm>
#include <utility>

namespace orrery {
namespace {

int32_t EndOf(const PromptLogprobs& chunk) { return chunk.begin + static_cast<int32_t>(chunk.chosen.size()); }

size_t BytesOfPosition(const PromptLogprobs& chunk) {
  return (1 + static_cast<size_t>(chunk.num_top)) * sizeof(chunk.top[0]);
}

void AddPosition(const PromptLogprobs& chunk, int32_t position, TokenId token, orrery::v1::Delta* delta) {
  const auto row = static_cast<size_t>(position - chunk.begin);
  orrery::v1::TokenLogprob* out = delta->add_prompt_logprobs();
  out->set_id(static_cast<uint32_t>(token));
  out->set_logprob(chunk.chosen[row]);
  const auto num_top = static_cast<size_t>(chunk.num_top);
  for (size_t k = row * num_top; k < (row + 1) * num_top; ++k) {
    orrery::v1::TopLogprob* top = out->add_top();
    top->set_id(static_cast<uint32_t>(chunk.top[k].first));
    top->set_logprob(chunk.top[k].second);
  }
}

}  // namespace

PromptLogprobQueue::PromptLogprobQueue(uint32_t choice, const std::vector<TokenId>& prompt)
    : prompt_(prompt) {
  message_.mutable_delta()->set_choice(choice);
}

void PromptLogprobQueue::Add(std::shared_ptr<const PromptLogprobs> chunk) {
  // A worker's word: what does not continue what there is, within the prompt, is no use.
  if (chunk->begin < 1 || chunk->begin > end_) return;
  if (chunk->chosen.size() > prompt_.size() - static_cast<size_t>(chunk->begin)) return;
  const int32_t end = EndOf(*chunk);
  if (end <= end_) return;
  const size_t bytes = static_cast<size_t>(end - end_) * BytesOfPosition(*chunk);
  largest_bytes_ = std::max(largest_bytes_, bytes);
  kept_bytes_ += bytes;
  end_ = end;
  chunks_.push_back(std::move(chunk));
  if (empty()) Build();
}

void PromptLogprobQueue::Pop() {
  // Freed rather than kept for the next one: most of a call's life comes after its prompt.
  google::protobuf::RepeatedPtrField<orrery::v1::TokenLogprob>().Swap(
      message_.mutable_delta()->mutable_prompt_logprobs());
  Build();
}

void PromptLogprobQueue::Build() {
  for (size_t entries = 0; !chunks_.empty() && entries < kMessageEntries;) {
    const PromptLogprobs& chunk = *chunks_.front();
    AddPosition(chunk, next_, prompt_[static_cast<size_t>(next_)], message_.mutable_delta());
    entries += 1 + static_cast<size_t>(chunk.num_top);
    kept_bytes_ -= BytesOfPosition(chunk);
    if (++next_ == EndOf(chunk)) chunks_.pop_front();
  }
}

}  // namespace orrery
