// Bytes as a GenerateRequest, through parser, validator and delivery; shared by the fuzz target and a test.
#ifndef ORRERY_TESTS_FUZZ_REQUEST_FUZZ_H_
#define ORRERY_TESTS_FUZZ_REQUEST_FUZZ_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

#include "google/protobuf/stubs/logging.h"
#include "orrery/v1/inference.pb.h"
#include "scheduler/base/check.h"
#include "server/base/errors.h"
#include "server/delivery/choice_stream.h"
#include "server/request/validate.h"
#include "tests/server/byte_codec.h"

namespace orrery {

// What everything behind the validator relies on.
inline void CheckSpec(const GenerationSpec& spec, const RequestLimits& limits) {
  const Sampling& s = spec.sampling;
  ORRERY_CHECK(!spec.prompt->empty());
  ORRERY_CHECK(spec.stop.max_tokens >= 1 && spec.stop.min_tokens <= spec.stop.max_tokens);
  ORRERY_CHECK(static_cast<int64_t>(spec.prompt->size()) + spec.stop.max_tokens <= limits.max_context);
  for (const TokenId id : *spec.prompt) ORRERY_CHECK(id >= 0 && id < limits.vocab_size);
  for (const TokenId id : spec.stop.stop_ids) ORRERY_CHECK(id >= 0 && id < limits.vocab_size);
  ORRERY_CHECK(s.temperature == 0 || s.temperature >= 1e-4f);
  ORRERY_CHECK(s.temperature <= 100 && s.top_p > 0 && s.top_p <= 1 && s.min_p >= 0 && s.min_p <= 1);
  ORRERY_CHECK(s.top_k >= 0 && s.top_k <= limits.vocab_size);
  ORRERY_CHECK(std::isfinite(s.presence_penalty) && std::isfinite(s.frequency_penalty));
  ORRERY_CHECK(s.repetition_penalty >= 0.009f && s.repetition_penalty <= 100);
  ORRERY_CHECK(s.num_logprobs >= -1 && s.num_logprobs <= static_cast<int32_t>(limits.max_logprobs));
  ORRERY_CHECK(s.num_prompt_logprobs >= -1 &&
               s.num_prompt_logprobs <= static_cast<int32_t>(limits.max_logprobs));
  for (size_t i = 0; i < s.logit_bias.size(); ++i) {
    ORRERY_CHECK(std::isfinite(s.logit_bias[i].second) && s.logit_bias[i].first < limits.vocab_size);
    ORRERY_CHECK(i == 0 || s.logit_bias[i - 1].first < s.logit_bias[i].first);
  }
  ORRERY_CHECK(spec.num_choices >= 1 && spec.num_choices <= limits.max_choices);
  ORRERY_CHECK(spec.deadline.ns > 0 && spec.slo.ttft.ns > 0 && spec.slo.tpot.ns > 0);
}

// True when the bytes are a request that would be served.
inline bool FuzzRequest(const uint8_t* data, size_t size) {
  static const auto* quiet = new google::protobuf::LogSilencer;  // malformed strings are logged otherwise
  (void)quiet;
  RequestLimits limits;
  limits.vocab_size = testing::kByteVocab;
  limits.max_context = limits.kv_tokens = 512;
  limits.max_text_bytes = 4096;
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  orrery::v1::GenerateRequest request;
  if (!request.ParseFromArray(data, static_cast<int>(size))) {
    const absl::Status why = ExplainParseFailure(bytes, orrery::v1::GenerateRequest::descriptor());
    ORRERY_CHECK(!why.ok() && !ErrorInfoOf(why).field().empty());
    return false;
  }
  const testing::ByteCodec codec;
  const auto spec = BuildSpec(request, limits, {}, codec, 1, "id");
  if (!spec.ok()) {
    ORRERY_CHECK(!ErrorInfoOf(spec.status()).field().empty());
    return false;
  }
  CheckSpec(*spec, limits);
  ChoiceStream stream(0, &*spec, codec.NewStreamDecoder(spec->skip_special, *spec->prompt));
  for (int i = 0; i < 64 && !stream.ended(); ++i) {
    TokenEvent event;
    event.index = i;
    event.token = i * 37 % 128;
    stream.OnEvent(event);
  }
  stream.End(FinishReason::kLength);
  return true;
}

}  // namespace orrery

#endif  // ORRERY_TESTS_FUZZ_REQUEST_FUZZ_H_
