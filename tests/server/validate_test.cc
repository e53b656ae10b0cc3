// Every field of a request out of its range: INVALID_ARGUMENT that names the field.
#include "server/request/validate.h"

#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/errors.h"
#include "tests/server/byte_codec.h"

namespace orrery {
namespace {

using orrery::v1::GenerateRequest;
using ::testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

RequestLimits Limits() {
  RequestLimits limits;
  limits.vocab_size = testing::kByteVocab;
  limits.max_context = 128;
  limits.kv_tokens = 128;
  limits.max_text_bytes = 1000;
  return limits;
}

GenerateRequest Good() {
  GenerateRequest request;
  request.set_text("hello");
  return request;
}

absl::StatusOr<GenerationSpec> Build(const GenerateRequest& request, RequestLimits limits = Limits(),
                                     SamplingDefaults defaults = {}) {
  return BuildSpec(request, limits, defaults, testing::ByteCodec(), 42, "fallback");
}

struct BadCase {
  const char* field;
  std::function<void(GenerateRequest&)> spoil;
};

orrery::v1::Sampling& S(GenerateRequest& r) { return *r.mutable_sampling(); }
orrery::v1::Slo& O(GenerateRequest& r) { return *r.mutable_slo(); }

void ExpectRefused(const BadCase& bad) {
  GenerateRequest request = Good();
  bad.spoil(request);
  const auto spec = Build(request);
  ASSERT_FALSE(spec.ok()) << bad.field;
  EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << bad.field;
  const orrery::v1::ErrorInfo info = ErrorInfoOf(spec.status());
  EXPECT_EQ(info.field(), bad.field);
  EXPECT_EQ(info.reason(), "invalid_argument");
  EXPECT_FALSE(info.limit().empty()) << bad.field;
  EXPECT_THAT(std::string(spec.status().message()), HasSubstr(bad.field));
}

TEST(Validate, Numbers) {
  const std::vector<BadCase> cases = {
      {"sampling.temperature", [](auto& r) { S(r).set_temperature(kNan); }},
      {"sampling.temperature", [](auto& r) { S(r).set_temperature(kInf); }},
      {"sampling.temperature", [](auto& r) { S(r).set_temperature(-0.1f); }},
      {"sampling.temperature", [](auto& r) { S(r).set_temperature(101.0f); }},
      {"sampling.top_p", [](auto& r) { S(r).set_top_p(0.0f); }},
      {"sampling.top_p", [](auto& r) { S(r).set_top_p(-0.0f); }},
      {"sampling.top_p", [](auto& r) { S(r).set_top_p(1.001f); }},
      {"sampling.top_p", [](auto& r) { S(r).set_top_p(kNan); }},
      {"sampling.min_p", [](auto& r) { S(r).set_min_p(-1e-9f); }},
      {"sampling.min_p", [](auto& r) { S(r).set_min_p(kInf); }},
      {"sampling.presence_penalty", [](auto& r) { S(r).set_presence_penalty(2.1f); }},
      {"sampling.frequency_penalty", [](auto& r) { S(r).set_frequency_penalty(-kInf); }},
      {"sampling.repetition_penalty", [](auto& r) { S(r).set_repetition_penalty(0.0f); }},
      {"sampling.repetition_penalty", [](auto& r) { S(r).set_repetition_penalty(1e-40f); }},
      {"sampling.repetition_penalty", [](auto& r) { S(r).set_repetition_penalty(kNan); }},
      {"sampling.top_k", [](auto& r) { S(r).set_top_k(-2); }},
      {"sampling.top_k", [](auto& r) { S(r).set_top_k(testing::kByteVocab + 1); }},
      {"sampling.n", [](auto& r) { S(r).set_n(0); }},
      {"sampling.n", [](auto& r) { S(r).set_n(65); }},
      {"sampling.n", [](auto& r) { S(r).set_n(1u << 31); }},
      {"sampling.n", [](auto& r) { S(r).set_n(~0u); }},
      {"sampling.logprobs", [](auto& r) { S(r).set_logprobs(21); }},
      {"sampling.logprobs", [](auto& r) { S(r).set_logprobs(~0u); }},
      {"sampling.prompt_logprobs", [](auto& r) { S(r).set_prompt_logprobs(21); }},
      {"sampling.prompt_logprobs", [](auto& r) { S(r).set_prompt_logprobs(~0u); }},
      {"sampling.max_tokens", [](auto& r) { S(r).set_max_tokens(0); }},
      {"sampling.max_tokens", [](auto& r) { S(r).set_max_tokens(123); }},  // 6 + 123 > 128
      {"sampling.max_tokens", [](auto& r) { S(r).set_max_tokens(~0u); }},
      {"sampling.min_tokens", [](auto& r) { S(r).set_min_tokens(~0u); }},
      {"sampling.min_tokens",
       [](auto& r) {
         S(r).set_max_tokens(3);
         S(r).set_min_tokens(4);
       }},
      {"sampling.truncate_prompt_tokens", [](auto& r) { S(r).set_truncate_prompt_tokens(0); }},
      {"sampling.logit_bias", [](auto& r) { (*S(r).mutable_logit_bias())[1] = kNan; }},
      {"sampling.logit_bias", [](auto& r) { (*S(r).mutable_logit_bias())[1] = 101.0f; }},
      {"sampling.logit_bias", [](auto& r) { (*S(r).mutable_logit_bias())[testing::kByteVocab] = 1.0f; }},
      {"slo.ttft_ms", [](auto& r) { O(r).set_ttft_ms(0); }},
      {"slo.tpot_ms", [](auto& r) { O(r).set_tpot_ms(std::nan("")); }},
      {"slo.deadline_ms", [](auto& r) { O(r).set_deadline_ms(-5); }},
      {"slo.deadline_ms", [](auto& r) { O(r).set_deadline_ms(1e300); }},
  };
  for (const BadCase& bad : cases) ExpectRefused(bad);
}

TEST(Validate, NoRealNumberMayBeInfiniteOrNone) {
  const std::vector<std::pair<const char*, void (*)(GenerateRequest&, float)>> fields = {
      {"sampling.temperature", [](auto& r, float v) { S(r).set_temperature(v); }},
      {"sampling.top_p", [](auto& r, float v) { S(r).set_top_p(v); }},
      {"sampling.min_p", [](auto& r, float v) { S(r).set_min_p(v); }},
      {"sampling.presence_penalty", [](auto& r, float v) { S(r).set_presence_penalty(v); }},
      {"sampling.frequency_penalty", [](auto& r, float v) { S(r).set_frequency_penalty(v); }},
      {"sampling.repetition_penalty", [](auto& r, float v) { S(r).set_repetition_penalty(v); }},
      {"sampling.logit_bias", [](auto& r, float v) { (*S(r).mutable_logit_bias())[3] = v; }},
      {"slo.ttft_ms", [](auto& r, float v) { O(r).set_ttft_ms(v); }},
      {"slo.tpot_ms", [](auto& r, float v) { O(r).set_tpot_ms(v); }},
      {"slo.deadline_ms", [](auto& r, float v) { O(r).set_deadline_ms(v); }},
  };
  for (const auto& [field, set] : fields) {
    for (const float value : {kNan, kInf, -kInf}) {
      ExpectRefused({field, [&, set = set](auto& r) { set(r, value); }});
    }
  }
}

TEST(Validate, TokensTextAndStops) {
  const std::vector<BadCase> cases = {
      {"prompt", [](auto& r) { r.clear_prompt(); }},
      {"token_ids", [](auto& r) { r.mutable_token_ids(); }},
      {"token_ids", [](auto& r) { r.mutable_token_ids()->add_ids(testing::kByteVocab); }},
      {"token_ids", [](auto& r) { r.mutable_token_ids()->add_ids(~0u); }},
      {"token_ids",
       [](auto& r) {
         for (int i = 0; i < 128; ++i) r.mutable_token_ids()->add_ids(1);  // no room for an output token
       }},
      {"text", [](auto& r) { r.set_text(std::string(1001, 'x')); }},
      {"text", [](auto& r) { r.set_text(std::string(127, 'x')); }},  // with BOS the whole context
      {"chat.messages", [](auto& r) { r.mutable_chat(); }},
      {"chat.messages.role", [](auto& r) { r.mutable_chat()->add_messages()->set_content("x"); }},
      {"chat.messages.content",
       [](auto& r) {
         auto* message = r.mutable_chat()->add_messages();
         message->set_role("user");
         message->set_content(std::string(1001, 'x'));
       }},
      {"sampling.stop", [](auto& r) { S(r).add_stop(""); }},
      {"sampling.stop", [](auto& r) { S(r).add_stop(std::string(1 << 20, 'x')); }},
      {"sampling.stop",
       [](auto& r) {
         for (int i = 0; i < 10'000; ++i) S(r).add_stop("x");
       }},
      {"sampling.stop_token_ids", [](auto& r) { S(r).add_stop_token_ids(testing::kByteVocab); }},
      {"sampling.stop_token_ids",
       [](auto& r) {
         for (int i = 0; i < 65; ++i) S(r).add_stop_token_ids(1);
       }},
      {"request_id", [](auto& r) { r.set_request_id(std::string(257, 'x')); }},
      {"request_id", [](auto& r) { r.set_request_id("a\nb"); }},
      {"tenant", [](auto& r) { r.set_tenant(std::string("a\0b", 3)); }},
      {"application_id", [](auto& r) { r.set_application_id(std::string(257, 'x')); }},
      {"session_id", [](auto& r) { r.set_session_id("\x7f"); }},
      {"cache_salt", [](auto& r) { r.set_cache_salt(std::string(1 << 20, 'x')); }},
      {"slo.class", [](auto& r) { O(r).set_class_("a\tb"); }},
  };
  for (const BadCase& bad : cases) ExpectRefused(bad);
}

TEST(Validate, EdgesThatAreFine) {
  GenerateRequest request = Good();
  S(request).set_temperature(-0.0f);
  S(request).set_top_p(1e-40f);
  S(request).set_min_p(1.0f);
  S(request).set_top_k(-1);
  S(request).set_n(64);
  S(request).set_logprobs(0);
  S(request).set_prompt_logprobs(20);
  S(request).set_max_tokens(122);
  S(request).set_seed(std::numeric_limits<uint64_t>::max());
  S(request).set_repetition_penalty(0.01f);
  request.set_priority(std::numeric_limits<int32_t>::min());
  const auto spec = Build(request);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_TRUE(spec->sampling.greedy());
  EXPECT_EQ(spec->sampling.top_k, 0);
  EXPECT_EQ(spec->sampling.num_logprobs, 0);
  EXPECT_EQ(spec->sampling.num_prompt_logprobs, 20);
  EXPECT_EQ(Build(Good())->sampling.num_prompt_logprobs, -1);
  EXPECT_EQ(spec->sampling.seed, std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(spec->num_choices, 64u);
}

TEST(Validate, PromptsAtTheEdgesOfTheContext) {
  GenerateRequest one;
  one.mutable_token_ids()->add_ids(testing::kByteEos);  // a special id, and nothing else
  ASSERT_TRUE(Build(one).ok());
  EXPECT_EQ(*Build(one)->prompt, (std::vector<TokenId>{testing::kByteEos}));
  EXPECT_EQ(Build(one)->stop.max_tokens, 127);
  GenerateRequest full;
  for (int i = 0; i < 127; ++i) full.mutable_token_ids()->add_ids(1);
  ASSERT_TRUE(Build(full).ok());
  EXPECT_EQ(Build(full)->stop.max_tokens, 1);
  GenerateRequest millions;
  millions.mutable_token_ids()->mutable_ids()->Resize(10'000'000, 1);
  EXPECT_EQ(ErrorInfoOf(Build(millions).status()).field(), "token_ids");
}

TEST(Validate, DenormalsAndExtremesAreNumbers) {
  GenerateRequest request = Good();
  S(request).set_min_p(1e-40f);
  S(request).set_presence_penalty(-1e-40f);
  S(request).set_top_k(0);
  S(request).set_seed(0);
  request.set_priority(std::numeric_limits<int32_t>::max());
  const auto spec = Build(request);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->sampling.seed, 0u);
  EXPECT_EQ(spec->priority, std::numeric_limits<int32_t>::max());
}

TEST(Validate, DenormalTemperatureIsGreedy) {
  GenerateRequest request = Good();
  S(request).set_temperature(1e-40f);
  EXPECT_TRUE(Build(request)->sampling.greedy());
}

TEST(Validate, DefaultsComeFromTheModelAndTheRequestWins) {
  SamplingDefaults defaults;
  defaults.temperature = 0.6f;
  defaults.top_k = 20;
  defaults.end_ids = {testing::kByteEos};
  GenerateRequest request = Good();
  S(request).set_top_k(5);
  S(request).add_stop_token_ids(7);
  S(request).add_stop_token_ids(7);
  auto spec = Build(request, Limits(), defaults);
  ASSERT_TRUE(spec.ok());
  EXPECT_FLOAT_EQ(spec->sampling.temperature, 0.6f);
  EXPECT_EQ(spec->sampling.top_k, 5);
  EXPECT_EQ(spec->sampling.seed, 42u);
  EXPECT_EQ(spec->request_id, "fallback");
  EXPECT_EQ(spec->stop.stop_ids, (std::vector<TokenId>{7, testing::kByteEos}));
  EXPECT_EQ(spec->stop.max_tokens, 122);
  S(request).set_ignore_eos(true);
  EXPECT_EQ(Build(request, Limits(), defaults)->stop.stop_ids, (std::vector<TokenId>{7}));
}

TEST(Validate, TruncationKeepsTheEndOfThePrompt) {
  GenerateRequest request;
  request.set_text("abcdef");
  S(request).set_truncate_prompt_tokens(2);
  EXPECT_EQ(*Build(request)->prompt, (std::vector<TokenId>{'e', 'f'}));
}

TEST(Validate, SaltsAndTenantsBecomeKeyedNumbers) {
  GenerateRequest one = Good(), two = Good();
  one.set_cache_salt("a");
  two.set_cache_salt("b");
  RequestLimits other = Limits();
  other.hash_key = 9;
  EXPECT_NE(Build(one)->cache_salt, Build(two)->cache_salt);
  EXPECT_NE(Build(one)->cache_salt, Build(one, other)->cache_salt);
  EXPECT_EQ(Build(Good())->cache_salt, 0u);
}

TEST(Validate, TheRoutingKeyIsThatOfTheSessionElseTheApplicationElseTheTenant) {
  const auto key = [](const char* tenant, const char* application, const char* session,
                      uint64_t hash_key = 0) {
    GenerateRequest request = Good();
    request.set_tenant(tenant);
    request.set_application_id(application);
    request.set_session_id(session);
    RequestLimits limits = Limits();
    limits.hash_key = hash_key;
    return Build(request, limits)->routing_key;
  };
  EXPECT_EQ(key("", "", ""), 0u);
  const std::set<uint64_t> distinct = {0,
                                       key("t", "", ""),
                                       key("t", "a", ""),
                                       key("u", "a", ""),
                                       key("t", "", "a"),
                                       key("t", "", "b"),
                                       key("u", "", "a"),
                                       key("ta", "", ""),
                                       key("", "ta", ""),
                                       key("t", "", "a", 9)};
  EXPECT_EQ(distinct.size(), 10u);
  EXPECT_EQ(key("t", "one", "a"), key("t", "two", "a")) << "a session may use several applications";
}

TEST(EncodeInput, AnUnsetInputIsRefused) {
  const std::string text = "ab";
  const auto tokens = EncodeInput(&text, nullptr, false, testing::ByteCodec());
  ASSERT_TRUE(tokens.ok());
  EXPECT_EQ(*tokens, (std::vector<TokenId>{'a', 'b'}));
  const auto unset = EncodeInput(nullptr, nullptr, false, testing::ByteCodec());
  EXPECT_EQ(unset.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorInfoOf(unset.status()).reason(), "invalid_argument");
}

TEST(ExplainParseFailure, NamesTheStringThatIsNotUtf8) {
  // sampling.stop = "\xff": field 5 (sampling), field 12 (stop).
  const std::string bytes("\x2a\x03\x62\x01\xff", 5);
  GenerateRequest request;
  ASSERT_FALSE(request.ParseFromString(bytes));
  const absl::Status status = ExplainParseFailure(bytes, GenerateRequest::descriptor());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorInfoOf(status).field(), "sampling.stop");
  EXPECT_EQ(ErrorInfoOf(ExplainParseFailure("\xff\xff\xff", GenerateRequest::descriptor())).field(),
            "message");
}

// A codec whose template stops at a limit.
class ExhaustedCodec final : public testing::ByteCodec {
 public:
  absl::StatusOr<std::vector<TokenId>> EncodeChat(absl::Span<const ChatTurn>, bool, size_t) const override {
    return absl::ResourceExhaustedError("chat template line 1: more than the limit of 2000000 steps");
  }
};

TEST(BuildSpec, ALimitOfTheTemplateIsAnErrorOfTheChat) {
  GenerateRequest request;
  auto* message = request.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("x");
  const auto spec = BuildSpec(request, Limits(), {}, ExhaustedCodec(), 42, "fallback");
  EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorInfoOf(spec.status()).reason(), "invalid_argument");
  EXPECT_EQ(ErrorInfoOf(spec.status()).field(), "chat");
  EXPECT_THAT(ErrorInfoOf(spec.status()).limit(), HasSubstr("2000000 steps"));
}

// A codec all of whose ids are long.
class LongCodec final : public testing::ByteCodec {
 public:
  std::unique_ptr<StreamDecoder> NewStreamDecoder(bool, absl::Span<const TokenId>) const override {
    return std::make_unique<Decoder>();
  }

 private:
  class Decoder final : public StreamDecoder {
   public:
    void Append(TokenId, std::string* text) override { text->append(100, 'x'); }
    void Flush(std::string*) override {}
  };
};

TEST(DecodeIds, IdsAndTheirTextAreBounded) {
  RequestLimits limits = Limits();  // 1000 bytes
  google::protobuf::RepeatedField<uint32_t> ids;
  const auto decode = [&](int count, const TextCodec& codec, std::string* text) {
    ids.Resize(count, 'a');
    text->clear();
    return DecodeIds(ids, true, limits, codec, text);
  };
  std::string text;
  EXPECT_TRUE(decode(1000, testing::ByteCodec(), &text).ok());
  EXPECT_EQ(text, std::string(1000, 'a'));
  EXPECT_EQ(ErrorInfoOf(decode(1001, testing::ByteCodec(), &text)).field(), "token_ids");
  EXPECT_TRUE(decode(10, LongCodec(), &text).ok());
  const absl::Status status = decode(1000, LongCodec(), &text);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorInfoOf(status).field(), "token_ids");
  EXPECT_LE(text.size(), 1100u) << "it stops where it knows";
}

}  // namespace
}  // namespace orrery
