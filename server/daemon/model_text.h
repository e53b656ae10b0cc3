// The text side of a checkpoint folder: its tokenizer and its chat template.
#ifndef ORRERY_SERVER_DAEMON_MODEL_TEXT_H_
#define ORRERY_SERVER_DAEMON_MODEL_TEXT_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/delivery/text_codec.h"
#include "server/text/chat_template.h"
#include "server/text/tokenizer.h"

namespace orrery {

class ModelText final : public TextCodec {
 public:
  // Errors name the file.
  static absl::StatusOr<std::unique_ptr<const ModelText>> Load(const std::string& model_dir);

  absl::StatusOr<std::vector<TokenId>> Encode(absl::string_view text, bool special,
                                              size_t most) const override;
  absl::StatusOr<std::vector<TokenId>> EncodeChat(absl::Span<const ChatTurn> turns,
                                                  bool add_generation_prompt, size_t most) const override;
  std::unique_ptr<StreamDecoder> NewStreamDecoder(bool skip_special,
                                                  absl::Span<const TokenId> prompt) const override;

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  bool has_chat_template() const { return chat_.has_value(); }

 private:
  ModelText(std::unique_ptr<const Tokenizer> tokenizer, std::optional<ChatTemplate> chat)
      : tokenizer_(std::move(tokenizer)), chat_(std::move(chat)) {}

  std::unique_ptr<const Tokenizer> tokenizer_;
  std::optional<ChatTemplate> chat_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_DAEMON_MODEL_TEXT_H_
