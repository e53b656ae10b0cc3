// From a checked message to a GenerationSpec: prompt to ids, defaults, the room that the context leaves.
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "scheduler/base/hash.h"
#include "server/base/errors.h"
#include "server/request/validate.h"

namespace orrery {
namespace {

using orrery::v1::GenerateRequest;
using WireSampling = orrery::v1::Sampling;

// Below this the quotient of a logit overflows; nothing but the best token has any weight long before.
constexpr float kGreedyBelow = 1e-4f;

absl::string_view PromptField(const GenerateRequest& request) {
  return request.has_text() ? "text" : request.has_chat() ? "chat" : "token_ids";
}

// Says which field the text was in; a codec does not know. A limit of the codec (a template that would take
// too many steps) is the text's fault as well: the same request never succeeds.
absl::Status InField(absl::string_view field, const absl::Status& status) {
  if (status.code() != absl::StatusCode::kInvalidArgument &&
      status.code() != absl::StatusCode::kFailedPrecondition &&
      status.code() != absl::StatusCode::kResourceExhausted) {
    return status;
  }
  orrery::v1::ErrorInfo info;
  info.set_reason("invalid_argument");
  info.set_field(std::string(field));
  info.set_limit(std::string(status.message()));
  return ErrorWithInfo(absl::StatusCode::kInvalidArgument, absl::StrCat(field, ": ", status.message()), info);
}

absl::Status TooLong(const GenerateRequest& request, const RequestLimits& limits, const std::string& actual) {
  return FieldError(
      PromptField(request),
      absl::StrCat("at most ", limits.max_context - 1, " tokens (context ", limits.max_context, ")"), actual);
}

// What can never fit is refused as soon as a piece of the text shows it, not after all of it was tokenised.
absl::StatusOr<std::vector<TokenId>> PromptTokens(const GenerateRequest& request, const RequestLimits& limits,
                                                  const TextCodec& codec) {
  if (request.has_token_ids()) {
    return std::vector<TokenId>(request.token_ids().ids().begin(), request.token_ids().ids().end());
  }
  auto tokens = EncodeInput(request.has_text() ? &request.text() : nullptr,
                            request.has_chat() ? &request.chat() : nullptr, true, codec,
                            request.sampling().has_truncate_prompt_tokens()
                                ? kAnyLength
                                : static_cast<size_t>(limits.max_context) - 1);
  if (absl::IsOutOfRange(tokens.status())) {
    return TooLong(request, limits, absl::StrCat("more than ", limits.max_context - 1));
  }
  if (tokens.ok() && tokens->empty()) {
    return FieldError(PromptField(request), "a text with at least one token", "empty");
  }
  return tokens;
}

// Cuts, checks against the context and sets max_tokens.
absl::Status FitContext(const GenerateRequest& request, const RequestLimits& limits,
                        std::vector<TokenId>* prompt, GenerationSpec* spec) {
  const WireSampling& sampling = request.sampling();
  if (sampling.has_truncate_prompt_tokens() && prompt->size() > sampling.truncate_prompt_tokens()) {
    prompt->erase(prompt->begin(), prompt->end() - sampling.truncate_prompt_tokens());
  }
  const auto length = static_cast<int64_t>(prompt->size());
  if (length > limits.max_context - 1) return TooLong(request, limits, absl::StrCat(length));
  const int64_t room = limits.max_context - length;
  if (!sampling.has_max_tokens()) {
    // A pool smaller than the context bounds what is possible; an explicit wish is refused, a default is not.
    const int64_t pool_room = std::max<int64_t>(limits.kv_tokens - length, 1);
    spec->stop.max_tokens = static_cast<int32_t>(std::min(room, pool_room));
  } else if (sampling.max_tokens() > room) {
    return FieldError(
        "sampling.max_tokens",
        absl::StrCat("at most ", room, " (context ", limits.max_context, " - prompt ", length, ")"),
        absl::StrCat(sampling.max_tokens()));
  } else {
    spec->stop.max_tokens = static_cast<int32_t>(sampling.max_tokens());
  }
  if (static_cast<int64_t>(sampling.min_tokens()) > spec->stop.max_tokens) {
    return FieldError("sampling.min_tokens", absl::StrCat("at most max_tokens = ", spec->stop.max_tokens),
                      absl::StrCat(sampling.min_tokens()));
  }
  spec->stop.min_tokens = static_cast<int32_t>(sampling.min_tokens());
  return absl::OkStatus();
}

Sampling ResolveSampling(const WireSampling& wire, const SamplingDefaults& defaults, uint64_t random_seed) {
  Sampling out;
  out.temperature = wire.has_temperature() ? wire.temperature() : defaults.temperature;
  if (out.temperature < kGreedyBelow) out.temperature = 0.0f;
  out.top_k = std::max(wire.has_top_k() ? wire.top_k() : defaults.top_k, 0);
  out.top_p = wire.has_top_p() ? wire.top_p() : defaults.top_p;
  out.min_p = wire.has_min_p() ? wire.min_p() : defaults.min_p;
  out.presence_penalty = wire.presence_penalty();
  out.frequency_penalty = wire.frequency_penalty();
  out.repetition_penalty =
      wire.has_repetition_penalty() ? wire.repetition_penalty() : defaults.repetition_penalty;
  for (const auto& [id, bias] : wire.logit_bias())
    out.logit_bias.emplace_back(static_cast<TokenId>(id), bias);
  std::sort(out.logit_bias.begin(), out.logit_bias.end());
  out.seed = wire.has_seed() ? wire.seed() : random_seed;
  out.num_logprobs = wire.has_logprobs() ? static_cast<int32_t>(wire.logprobs()) : -1;
  out.num_prompt_logprobs = wire.has_prompt_logprobs() ? static_cast<int32_t>(wire.prompt_logprobs()) : -1;
  return out;
}

absl::Status ResolveStops(const WireSampling& wire, const SamplingDefaults& defaults, GenerationSpec* spec) {
  if (!wire.stop().empty()) {
    auto stops = StopStrings::Create(std::vector<std::string>(wire.stop().begin(), wire.stop().end()));
    if (!stops.ok()) return InField("sampling.stop", stops.status());
    spec->stop_strings = *std::move(stops);
  }
  spec->client_stop_ids.assign(wire.stop_token_ids().begin(), wire.stop_token_ids().end());
  std::vector<TokenId> ids = spec->client_stop_ids;
  if (!wire.ignore_eos()) ids.insert(ids.end(), defaults.end_ids.begin(), defaults.end_ids.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  spec->stop.stop_ids = std::move(ids);
  return absl::OkStatus();
}

Duration FromMilliseconds(bool has, double milliseconds) {
  return has ? Duration::Seconds(milliseconds * 1e-3) : Duration::Infinite();
}

uint64_t HashName(const std::string& name, uint64_t key) {
  return name.empty() ? 0 : SipHash24(key, 0).FinishWith(name).low;
}

// Of this tenant: a name that another tenant uses too is another one.
std::string WithinTenant(const GenerateRequest& request, const std::string& name) {
  return absl::StrCat(request.tenant().size(), ":", request.tenant(), name);
}

uint64_t RoutingKey(const GenerateRequest& request, uint64_t key) {
  const std::string &session = request.session_id(), &application = request.application_id();
  if (session.empty() && application.empty()) return HashName(request.tenant(), key);
  const bool of_session = !session.empty();
  return HashName(
      absl::StrCat(of_session ? "s" : "a", WithinTenant(request, of_session ? session : application)), key);
}

}  // namespace

absl::StatusOr<std::vector<TokenId>> EncodeInput(const std::string* text, const orrery::v1::Chat* chat,
                                                 bool add_special, const TextCodec& codec, size_t most) {
  if (text == nullptr && chat == nullptr) return FieldError("input", "text or chat", "unset");
  absl::StatusOr<std::vector<TokenId>> tokens;
  if (chat != nullptr) {
    std::vector<ChatTurn> turns;
    for (const auto& message : chat->messages()) turns.push_back({message.role(), message.content()});
    tokens =
        codec.EncodeChat(turns, !chat->has_add_generation_prompt() || chat->add_generation_prompt(), most);
  } else {
    tokens = codec.Encode(*text, add_special, most);
  }
  if (!tokens.ok()) return InField(chat != nullptr ? "chat" : "text", tokens.status());
  return tokens;
}

absl::Status DecodeIds(const google::protobuf::RepeatedField<uint32_t>& ids, bool skip_special,
                       const RequestLimits& limits, const TextCodec& codec, std::string* text) {
  const size_t most = limits.max_text_bytes;
  if (static_cast<size_t>(ids.size()) > most) {
    return FieldError("token_ids", absl::StrCat("at most ", most, " ids"), absl::StrCat(ids.size()));
  }
  if (absl::Status status = ValidateTokenIds(ids, "token_ids", limits); !status.ok()) return status;
  // Id by id, since one of a byte in the message can stand for hundreds in the text.
  const auto decoder = codec.NewStreamDecoder(skip_special, {});
  for (int i = 0; i < ids.size() && text->size() <= most; ++i) {
    decoder->Append(static_cast<TokenId>(ids[i]), text);
  }
  decoder->Flush(text);
  if (text->size() <= most) return absl::OkStatus();
  return FieldError("token_ids", absl::StrCat("ids of at most ", most, " bytes of text"), "more");
}

absl::StatusOr<GenerationSpec> BuildSpec(const GenerateRequest& request, const RequestLimits& limits,
                                         const SamplingDefaults& defaults, const TextCodec& codec,
                                         uint64_t random_seed, const std::string& fallback_id) {
  if (absl::Status status = ValidateRequest(request, limits); !status.ok()) return status;
  const WireSampling& sampling = request.sampling();
  GenerationSpec spec;
  auto prompt = PromptTokens(request, limits, codec);
  if (!prompt.ok()) return prompt.status();
  if (absl::Status status = FitContext(request, limits, &*prompt, &spec); !status.ok()) return status;
  spec.prompt = std::make_shared<const std::vector<TokenId>>(*std::move(prompt));
  spec.request_id = request.request_id().empty() ? fallback_id : request.request_id();
  spec.sampling = ResolveSampling(sampling, defaults, random_seed);
  if (absl::Status status = ResolveStops(sampling, defaults, &spec); !status.ok()) return status;
  spec.include_stop = sampling.include_stop_in_output();
  spec.skip_special = !sampling.has_skip_special_tokens() || sampling.skip_special_tokens();
  spec.truncate_prompt = sampling.truncate_prompt_tokens();
  spec.ignore_eos = sampling.ignore_eos();
  spec.echo_prompt = request.echo_prompt_token_ids();
  spec.num_choices = sampling.has_n() ? sampling.n() : 1;
  spec.slo.ttft = FromMilliseconds(request.slo().has_ttft_ms(), request.slo().ttft_ms());
  spec.slo.tpot = FromMilliseconds(request.slo().has_tpot_ms(), request.slo().tpot_ms());
  spec.slo_class = request.slo().class_();
  spec.deadline = FromMilliseconds(request.slo().has_deadline_ms(), request.slo().deadline_ms());
  spec.priority = request.priority();
  spec.tenant = static_cast<uint32_t>(HashName(request.tenant(), limits.hash_key));
  if (!request.application_id().empty()) {
    const std::string name = WithinTenant(request, request.application_id());
    spec.application = static_cast<uint32_t>(HashName(name, limits.hash_key)) | 1;
  }
  spec.routing_key = RoutingKey(request, limits.hash_key);
  spec.cache_salt = HashName(request.cache_salt(), limits.hash_key);
  return spec;
}

}  // namespace orrery
