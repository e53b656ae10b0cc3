// The text side of a model as the server needs it: prompts to token ids, output ids to text. Safe to use from
// many threads at once; a StreamDecoder belongs to one choice of one request.
#ifndef ORRERY_SERVER_DELIVERY_TEXT_CODEC_H_
#define ORRERY_SERVER_DELIVERY_TEXT_CODEC_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "scheduler/base/ids.h"

namespace orrery {

inline constexpr size_t kAnyLength = ~size_t{0};

struct ChatTurn {
  std::string role;
  std::string content;
};

// Text of output ids as they come; what it appends is always whole UTF-8 characters.
class StreamDecoder {
 public:
  virtual ~StreamDecoder() = default;
  virtual void Append(TokenId token, std::string* text) = 0;
  // What is left of an incomplete character, as U+FFFD.
  virtual void Flush(std::string* text) = 0;
};

class TextCodec {
 public:
  virtual ~TextCodec() = default;
  // `special` adds what the model's post-processor adds (BOS). Special-token strings inside are plain text.
  // OUT_OF_RANGE, here and below: more than `most` ids; known at the end of a piece of the text, if it has
  // pieces.
  virtual absl::StatusOr<std::vector<TokenId>> Encode(absl::string_view text, bool special,
                                                      size_t most) const = 0;
  // The rendered chat template, encoded. FAILED_PRECONDITION when the model has none.
  virtual absl::StatusOr<std::vector<TokenId>> EncodeChat(absl::Span<const ChatTurn> turns,
                                                          bool add_generation_prompt, size_t most) const = 0;
  // `prompt` is what the ids to come continue.
  virtual std::unique_ptr<StreamDecoder> NewStreamDecoder(bool skip_special,
                                                          absl::Span<const TokenId> prompt) const = 0;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_DELIVERY_TEXT_CODEC_H_
