#include "server/request/validate.h"

#include <cmath>
#include <initializer_list>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/base/errors.h"
#include "server/text/stop_matcher.h"

namespace orrery {
namespace {

using orrery::v1::GenerateRequest;
using WireSampling = orrery::v1::Sampling;
using WireSlo = orrery::v1::Slo;

constexpr size_t kMaxNameBytes = 256;
constexpr size_t kMaxBiases = 4096;
constexpr int kMaxChatMessages = 4096;
constexpr double kMinMilliseconds = 1e-3, kMaxMilliseconds = 1e10;

// A number that must be finite and in [low, high], or in (low, high].
template <typename Message, typename Number>
struct NumberRow {
  absl::string_view field;
  bool (Message::*has)() const;
  Number (Message::*get)() const;
  double low, high;
  bool low_open;
};

constexpr NumberRow<WireSampling, float> kFloats[] = {
    {"sampling.temperature", &WireSampling::has_temperature, &WireSampling::temperature, 0, 100, false},
    {"sampling.top_p", &WireSampling::has_top_p, &WireSampling::top_p, 0, 1, true},
    {"sampling.min_p", &WireSampling::has_min_p, &WireSampling::min_p, 0, 1, false},
    {"sampling.presence_penalty", &WireSampling::has_presence_penalty, &WireSampling::presence_penalty, -2, 2,
     false},
    {"sampling.frequency_penalty", &WireSampling::has_frequency_penalty, &WireSampling::frequency_penalty, -2,
     2, false},
    {"sampling.repetition_penalty", &WireSampling::has_repetition_penalty, &WireSampling::repetition_penalty,
     0.01, 100, false},
};

constexpr NumberRow<WireSlo, double> kSloTimes[] = {
    {"slo.ttft_ms", &WireSlo::has_ttft_ms, &WireSlo::ttft_ms, kMinMilliseconds, kMaxMilliseconds, false},
    {"slo.tpot_ms", &WireSlo::has_tpot_ms, &WireSlo::tpot_ms, kMinMilliseconds, kMaxMilliseconds, false},
    {"slo.deadline_ms", &WireSlo::has_deadline_ms, &WireSlo::deadline_ms, kMinMilliseconds, kMaxMilliseconds,
     false},
};

template <typename Message, typename Number>
absl::Status CheckNumber(const NumberRow<Message, Number>& row, const Message& message) {
  if (!(message.*row.has)()) return absl::OkStatus();
  const double value = static_cast<double>((message.*row.get)());
  // 0.01f is a little below 0.01: compare in the field's own precision.
  const double low = static_cast<double>(static_cast<Number>(row.low));
  const bool inside = (row.low_open ? value > low : value >= low) && value <= row.high;
  if (inside) return absl::OkStatus();  // NaN is never inside
  return FieldError(row.field, absl::StrCat("in ", row.low_open ? "(" : "[", row.low, ", ", row.high, "]"),
                    absl::StrCat(value));
}

absl::Status CheckInteger(absl::string_view field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return FieldError(field, absl::StrCat("in [", low, ", ", high, "]"), absl::StrCat(value));
}

// Short, and without control characters: these end up in log lines and labels.
absl::Status CheckName(absl::string_view field, absl::string_view value) {
  if (value.size() > kMaxNameBytes) {
    return FieldError(field, absl::StrCat("at most ", kMaxNameBytes, " bytes"), absl::StrCat(value.size()));
  }
  for (const char c : value) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      return FieldError(field, "without control characters", "");
    }
  }
  return absl::OkStatus();
}

absl::Status FirstError(std::initializer_list<absl::Status> statuses) {
  for (const absl::Status& status : statuses) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckBiases(const WireSampling& sampling, const RequestLimits& limits) {
  if (sampling.logit_bias().size() > kMaxBiases) {
    return FieldError("sampling.logit_bias", absl::StrCat("at most ", kMaxBiases, " entries"),
                      absl::StrCat(sampling.logit_bias().size()));
  }
  for (const auto& [id, bias] : sampling.logit_bias()) {
    if (id >= static_cast<uint32_t>(limits.vocab_size)) {
      return FieldError("sampling.logit_bias", absl::StrCat("on ids below ", limits.vocab_size),
                        absl::StrCat(id));
    }
    if (!(bias >= -100.0f && bias <= 100.0f)) {
      return FieldError("sampling.logit_bias", "in [-100, 100]", absl::StrCat(bias));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStops(const WireSampling& sampling, const RequestLimits& limits) {
  if (static_cast<size_t>(sampling.stop_size()) > kMaxStopStrings) {
    return FieldError("sampling.stop", absl::StrCat("at most ", kMaxStopStrings, " strings"),
                      absl::StrCat(sampling.stop_size()));
  }
  for (const std::string& stop : sampling.stop()) {
    if (stop.empty()) return FieldError("sampling.stop", "non-empty strings", "an empty one");
    if (stop.size() > kMaxStopBytes) {
      return FieldError("sampling.stop", absl::StrCat("strings of at most ", kMaxStopBytes, " bytes"),
                        absl::StrCat(stop.size()));
    }
  }
  if (static_cast<size_t>(sampling.stop_token_ids_size()) > kMaxStopStrings) {
    return FieldError("sampling.stop_token_ids", absl::StrCat("at most ", kMaxStopStrings, " ids"),
                      absl::StrCat(sampling.stop_token_ids_size()));
  }
  return ValidateTokenIds(sampling.stop_token_ids(), "sampling.stop_token_ids", limits);
}

absl::Status CheckCounts(const WireSampling& sampling, const RequestLimits& limits) {
  const auto optional = [](absl::string_view field, bool has, int64_t value, int64_t low, int64_t high) {
    return has ? CheckInteger(field, value, low, high) : absl::OkStatus();
  };
  const int64_t context = limits.max_context;
  absl::Status status = FirstError(
      {optional("sampling.top_k", sampling.has_top_k(), sampling.top_k(), -1, limits.vocab_size),
       optional("sampling.n", sampling.has_n(), sampling.n(), 1, limits.max_choices),
       optional("sampling.logprobs", sampling.has_logprobs(), sampling.logprobs(), 0, limits.max_logprobs),
       optional("sampling.prompt_logprobs", sampling.has_prompt_logprobs(), sampling.prompt_logprobs(), 0,
                limits.max_logprobs),
       optional("sampling.max_tokens", sampling.has_max_tokens(), sampling.max_tokens(), 1, context - 1),
       optional("sampling.min_tokens", sampling.has_min_tokens(), sampling.min_tokens(), 0, context - 1),
       optional("sampling.truncate_prompt_tokens", sampling.has_truncate_prompt_tokens(),
                sampling.truncate_prompt_tokens(), 1, context - 1)});
  if (!status.ok()) return status;
  if (sampling.has_max_tokens() && sampling.min_tokens() > sampling.max_tokens()) {
    return FieldError("sampling.min_tokens", absl::StrCat("at most max_tokens = ", sampling.max_tokens()),
                      absl::StrCat(sampling.min_tokens()));
  }
  return absl::OkStatus();
}

absl::Status CheckPrompt(const GenerateRequest& request, const RequestLimits& limits) {
  switch (request.prompt_case()) {
    case GenerateRequest::kText:
      if (request.text().size() <= limits.max_text_bytes) return absl::OkStatus();
      return FieldError("text", absl::StrCat("at most ", limits.max_text_bytes, " bytes"),
                        absl::StrCat(request.text().size()));
    case GenerateRequest::kTokenIds:
      if (request.token_ids().ids().empty()) return FieldError("token_ids", "at least one id", "empty");
      return ValidateTokenIds(request.token_ids().ids(), "token_ids", limits);
    case GenerateRequest::kChat:
      return ValidateChat(request.chat(), limits);
    case GenerateRequest::PROMPT_NOT_SET:
      break;
  }
  return FieldError("prompt", "one of text, token_ids, chat", "none");
}

}  // namespace

absl::Status ValidateTokenIds(const google::protobuf::RepeatedField<uint32_t>& ids, absl::string_view field,
                              const RequestLimits& limits) {
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] < static_cast<uint32_t>(limits.vocab_size)) continue;
    return FieldError(field, absl::StrCat("ids below ", limits.vocab_size),
                      absl::StrCat(ids[i], " at index ", i));
  }
  return absl::OkStatus();
}

absl::Status ValidateChat(const orrery::v1::Chat& chat, const RequestLimits& limits) {
  if (chat.messages().empty()) return FieldError("chat.messages", "at least one message", "empty");
  if (chat.messages_size() > kMaxChatMessages) {
    return FieldError("chat.messages", absl::StrCat("at most ", kMaxChatMessages, " messages"),
                      absl::StrCat(chat.messages_size()));
  }
  size_t bytes = 0;
  for (const auto& message : chat.messages()) {
    if (message.role().empty()) return FieldError("chat.messages.role", "non-empty", "");
    if (absl::Status status = CheckName("chat.messages.role", message.role()); !status.ok()) return status;
    bytes += message.content().size();
  }
  if (bytes <= limits.max_text_bytes) return absl::OkStatus();
  return FieldError("chat.messages.content", absl::StrCat("at most ", limits.max_text_bytes, " bytes in all"),
                    absl::StrCat(bytes));
}

absl::Status ValidateRequest(const GenerateRequest& request, const RequestLimits& limits) {
  const WireSampling& sampling = request.sampling();
  for (const auto& row : kFloats) {
    if (absl::Status status = CheckNumber(row, sampling); !status.ok()) return status;
  }
  for (const auto& row : kSloTimes) {
    if (absl::Status status = CheckNumber(row, request.slo()); !status.ok()) return status;
  }
  return FirstError(
      {CheckCounts(sampling, limits), CheckBiases(sampling, limits), CheckStops(sampling, limits),
       CheckName("request_id", request.request_id()), CheckName("tenant", request.tenant()),
       CheckName("application_id", request.application_id()), CheckName("session_id", request.session_id()),
       CheckName("cache_salt", request.cache_salt()), CheckName("slo.class", request.slo().class_()),
       CheckPrompt(request, limits)});
}

}  // namespace orrery
