#include "server/delivery/choice_stream.h"

#include <utility>

namespace orrery {
namespace {

orrery::v1::FinishReason WireReason(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return orrery::v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return orrery::v1::FINISH_REASON_LENGTH;
    case FinishReason::kCancelled:
      return orrery::v1::FINISH_REASON_CANCELLED;
    case FinishReason::kDeadline:
      return orrery::v1::FINISH_REASON_DEADLINE;
    case FinishReason::kError:
      return orrery::v1::FINISH_REASON_ERROR;
    case FinishReason::kNone:
      break;
  }
  return orrery::v1::FINISH_REASON_UNSPECIFIED;
}

}  // namespace

ChoiceStream::ChoiceStream(uint32_t choice, const GenerationSpec* spec,
                           std::unique_ptr<StreamDecoder> decoder)
    : choice_(choice),
      spec_(spec),
      decoder_(std::move(decoder)),
      matcher_(spec->stop_strings, spec->include_stop) {
  delta_.mutable_delta()->set_choice(choice_);
}

ChoiceStream::Effect ChoiceStream::OnEvent(const TokenEvent& event) {
  if (ended()) return Effect::kNone;
  bool stopped = false;
  if (event.prompt_logprobs != nullptr) {
    if (prompt_logprobs_ == nullptr) {
      prompt_logprobs_ = std::make_unique<PromptLogprobQueue>(choice_, *spec_->prompt);
    }
    prompt_logprobs_->Add(event.prompt_logprobs);
  }
  if (event.token >= 0) {
    if (event.index < num_tokens_) return Effect::kNone;  // an older attempt said it already
    ++num_tokens_;
    if (first_token_.is_never()) first_token_ = event.at;
    last_token_ = event.at;
    stopped = TakeText(event);
  }
  if (stopped) {
    finish_ = FinishReason::kStop;
    return event.finish == FinishReason::kNone ? Effect::kStopString : Effect::kProgress;
  }
  if (event.finish != FinishReason::kNone) {
    if (event.finish == FinishReason::kStop) stop_token_ = event.token;
    error_ = event.error;
    End(event.finish);
  }
  return Effect::kProgress;
}

void ChoiceStream::End(FinishReason reason) {
  if (ended()) return;
  finish_ = reason;
  std::string* text = delta_.mutable_delta()->mutable_text();
  const size_t before = text->size();
  piece_.clear();
  decoder_->Flush(&piece_);
  // What an incomplete character becomes cannot complete a stop string that the client could mean.
  matcher_.Finish(text);
  text->append(piece_);
  delta_bytes_ += text->size() - before;
}

// Adds the id and the text of a token to the delta. True when it completed a stop string.
bool ChoiceStream::TakeText(const TokenEvent& event) {
  orrery::v1::Delta* delta = delta_.mutable_delta();
  delta->add_token_ids(static_cast<uint32_t>(event.token));
  ++delta_tokens_;
  delta_bytes_ += sizeof(uint32_t);
  AddLogprobs(event);
  if (event.finish == FinishReason::kStop) return false;  // a stop id has no text
  piece_.clear();
  decoder_->Append(event.token, &piece_);
  if (piece_.empty()) return false;
  const size_t before = delta->text().size();
  const bool armed = num_tokens_ >= spec_->stop.min_tokens;
  stop_string_ = matcher_.Push(piece_, delta->mutable_text(), armed);
  delta_bytes_ += delta->text().size() - before;
  return stop_string_ >= 0;
}

void ChoiceStream::AddLogprobs(const TokenEvent& event) {
  if (event.logprobs == nullptr) return;
  orrery::v1::TokenLogprob* out = delta_.mutable_delta()->add_logprobs();
  out->set_id(static_cast<uint32_t>(event.token));
  out->set_logprob(event.logprobs->chosen);
  for (const auto& [token, logprob] : event.logprobs->top) {
    orrery::v1::TopLogprob* top = out->add_top();
    top->set_id(static_cast<uint32_t>(token));
    top->set_logprob(logprob);
  }
  delta_bytes_ += 16 * (1 + event.logprobs->top.size());
}

void ChoiceStream::ClearDelta() {
  if (has_prompt_delta()) return prompt_logprobs_->Pop();
  orrery::v1::Delta* delta = delta_.mutable_delta();
  delta->clear_text();
  delta->clear_token_ids();
  delta->clear_logprobs();
  delta_tokens_ = delta_bytes_ = 0;
}

void ChoiceStream::FillFinished(orrery::v1::Finished* finished) const {
  finished->set_choice(choice_);
  finished->set_finish_reason(WireReason(finish_));
  if (stop_string_ >= 0)
    finished->set_stop_text(spec_->stop_strings->text(static_cast<size_t>(stop_string_)));
  if (stop_token_ >= 0) finished->set_stop_token_id(static_cast<uint32_t>(stop_token_));
  finished->set_error(error_);
}

}  // namespace orrery
