// The one place where a request's fields are checked: range, finiteness, counts and sizes, from a table. The
// first field out of its limit is an INVALID_ARGUMENT with an ErrorInfo that names field, limit and value;
// nothing behind this point meets a number it cannot compute with. No check costs more than the size of its
// field.
#ifndef ORRERY_SERVER_REQUEST_VALIDATE_H_
#define ORRERY_SERVER_REQUEST_VALIDATE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "orrery/v1/inference.pb.h"
#include "server/delivery/generation_spec.h"
#include "server/delivery/text_codec.h"
#include "server/request/request_limits.h"

namespace orrery {

// Everything but the prompt's tokens.
absl::Status ValidateRequest(const orrery::v1::GenerateRequest& request, const RequestLimits& limits);
absl::Status ValidateChat(const orrery::v1::Chat& chat, const RequestLimits& limits);
absl::Status ValidateTokenIds(const google::protobuf::RepeatedField<uint32_t>& ids, absl::string_view field,
                              const RequestLimits& limits);

// The whole way from a message to a specification: checks, tokenises, fills in the defaults. `random_seed` is
// used where the request brings no seed, `fallback_id` where it brings no request_id.
absl::StatusOr<GenerationSpec> BuildSpec(const orrery::v1::GenerateRequest& request,
                                         const RequestLimits& limits, const SamplingDefaults& defaults,
                                         const TextCodec& codec, uint64_t random_seed,
                                         const std::string& fallback_id);

// The ids of a text or a chat; errors name `text` or `chat`. Neither of them set: an error. OUT_OF_RANGE:
// more than `most`.
absl::StatusOr<std::vector<TokenId>> EncodeInput(const std::string* text, const orrery::v1::Chat* chat,
                                                 bool add_special, const TextCodec& codec,
                                                 size_t most = kAnyLength);

// The text of ids; they are as many as max_text_bytes at most, and so are its bytes. Errors name `token_ids`.
absl::Status DecodeIds(const google::protobuf::RepeatedField<uint32_t>& ids, bool skip_special,
                       const RequestLimits& limits, const TextCodec& codec, std::string* text);

// Why bytes are not a message of this type: the field with a string that is not UTF-8, or that they are
// malformed.
absl::Status ExplainParseFailure(absl::string_view bytes, const google::protobuf::Descriptor* type);

}  // namespace orrery

#endif  // ORRERY_SERVER_REQUEST_VALIDATE_H_
