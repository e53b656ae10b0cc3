// Log-probabilities of a prompt on their way to the client: chunks as the engine scored them in, messages of
// bounded size out. A prompt has many and they come in bursts, so they are kept as plain numbers, and only
// the message that is next is built.
#ifndef ORRERY_SERVER_DELIVERY_PROMPT_LOGPROB_QUEUE_H_
#define ORRERY_SERVER_DELIVERY_PROMPT_LOGPROB_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "orrery/v1/inference.pb.h"
#include "scheduler/types/request.h"

namespace orrery {

class PromptLogprobQueue {
 public:
  // Numbers (ids with their log-probabilities) in a message, one position at least: some 64 KiB on the wire.
  static constexpr size_t kMessageEntries = 5 << 10;

  // `prompt` outlives the queue.
  PromptLogprobQueue(uint32_t choice, const std::vector<TokenId>& prompt);

  // Positions that were here before (an earlier attempt said them) are passed over.
  void Add(std::shared_ptr<const PromptLogprobs> chunk);

  bool empty() const { return message_.delta().prompt_logprobs().empty(); }
  // A Delta with the next positions. REQUIRES: !empty().
  const orrery::v1::GenerateResponse& message() const { return message_; }
  // The message was taken.
  void Pop();

  // What is kept beyond some chunks of the largest size: a step makes a chunk at once, however large, and a
  // client that keeps pace on the whole may lag by a few.
  static constexpr size_t kChunksAhead = 4;
  size_t bytes() const {
    const size_t ahead = kChunksAhead * largest_bytes_;
    return kept_bytes_ > ahead ? kept_bytes_ - ahead : 0;
  }

 private:
  void Build();

  const std::vector<TokenId>& prompt_;
  std::deque<std::shared_ptr<const PromptLogprobs>> chunks_;
  int32_t next_ = 1;          // position behind the message
  int32_t end_ = 1;           // position behind the newest chunk
  size_t kept_bytes_ = 0;     // of chunks_, from next_ on
  size_t largest_bytes_ = 0;  // of a chunk
  orrery::v1::GenerateResponse message_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_DELIVERY_PROMPT_LOGPROB_QUEUE_H_
