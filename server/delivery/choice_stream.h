// One choice of one request: token events in, text and ids for the client out. Decodes, matches stop strings,
// collects log-probabilities, and counts. Does not know how anything is sent.
#ifndef ORRERY_SERVER_DELIVERY_CHOICE_STREAM_H_
#define ORRERY_SERVER_DELIVERY_CHOICE_STREAM_H_

#include <cstdint>
#include <memory>
#include <string>

#include "orrery/v1/inference.pb.h"
#include "scheduler/types/request.h"
#include "server/delivery/generation_spec.h"
#include "server/delivery/prompt_logprob_queue.h"
#include "server/delivery/text_codec.h"

namespace orrery {

class ChoiceStream {
 public:
  // `spec` outlives the stream.
  ChoiceStream(uint32_t choice, const GenerationSpec* spec, std::unique_ptr<StreamDecoder> decoder);

  // What an event meant for the choice.
  enum class Effect {
    kNone,        // dropped: the choice has ended, or the token was seen before
    kProgress,    // a token, perhaps the last one, or something about the prompt
    kStopString,  // the token completed a stop string: the worker must be told to stop
  };
  Effect OnEvent(const TokenEvent& event);
  // Ends the choice from outside (deadline, lost client) unless it has ended.
  void End(FinishReason reason);

  bool ended() const { return finish_ != FinishReason::kNone; }
  FinishReason finish() const { return finish_; }
  const std::string& error() const { return error_; }
  int32_t num_tokens() const { return num_tokens_; }
  Time first_token() const { return first_token_; }  // Never() before
  Time last_token() const { return last_token_; }    // Never() before

  // What the client has not been given yet: a message, behind which there may be another. The caller clears
  // it after sending.
  bool has_delta() const { return has_prompt_delta() || delta_tokens_ > 0 || !delta()->text().empty(); }
  const orrery::v1::GenerateResponse& delta_message() const {
    return has_prompt_delta() ? prompt_logprobs_->message() : delta_;
  }
  size_t delta_bytes() const {
    return delta_bytes_ + (prompt_logprobs_ == nullptr ? 0 : prompt_logprobs_->bytes());
  }
  void ClearDelta();

  // Fills finish_reason, stop_reason and error of the final message.
  void FillFinished(orrery::v1::Finished* finished) const;

 private:
  bool has_prompt_delta() const { return prompt_logprobs_ != nullptr && !prompt_logprobs_->empty(); }
  const orrery::v1::Delta* delta() const { return &delta_.delta(); }
  bool TakeText(const TokenEvent& event);
  void AddLogprobs(const TokenEvent& event);

  const uint32_t choice_;
  const GenerationSpec* spec_;
  std::unique_ptr<StreamDecoder> decoder_;
  StopMatcher matcher_;
  std::unique_ptr<PromptLogprobQueue> prompt_logprobs_;  // null without any

  orrery::v1::GenerateResponse delta_;
  size_t delta_tokens_ = 0;
  size_t delta_bytes_ = 0;
  std::string piece_;

  int32_t num_tokens_ = 0;
  Time first_token_ = Time::Never(), last_token_ = Time::Never();
  FinishReason finish_ = FinishReason::kNone;
  std::string error_;
  int stop_string_ = -1;     // index, when a stop string ended the choice
  TokenId stop_token_ = -1;  // when a stop id did
};

}  // namespace orrery

#endif  // ORRERY_SERVER_DELIVERY_CHOICE_STREAM_H_
