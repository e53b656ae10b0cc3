#include "server/daemon/model_text.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/config/server_config.h"
#include "server/text/detokenizer.h"

namespace orrery {
namespace {

// What the options let through, the tokenizer takes.
static_assert(EncodeOptions().max_bytes >= kMostTextBytes);

// A template longer than this is not one.
constexpr size_t kMaxFileBytes = 16 << 20;

// Empty when there is no such file.
absl::StatusOr<std::string> ReadIfThere(const std::string& path) {
  std::error_code error;
  const auto kind = std::filesystem::status(path, error).type();
  if (kind == std::filesystem::file_type::not_found) return std::string();
  if (kind != std::filesystem::file_type::regular) {  // to open a pipe would be to wait for its other end
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be opened"));
  std::string text;
  char chunk[1 << 16];
  while (file.read(chunk, sizeof chunk), file.gcount() > 0) {
    text.append(chunk, static_cast<size_t>(file.gcount()));
    if (text.size() > kMaxFileBytes) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": larger than ", kMaxFileBytes, " bytes"));
    }
  }
  return text;
}

class TokenizerStreamDecoder final : public StreamDecoder {
 public:
  TokenizerStreamDecoder(const Tokenizer* tokenizer, bool skip_special, absl::Span<const TokenId> prompt)
      : detokenizer_(tokenizer, skip_special, prompt) {}
  void Append(TokenId token, std::string* text) override { detokenizer_.Append(token, text); }
  void Flush(std::string* text) override { detokenizer_.Finish(text); }

 private:
  Detokenizer detokenizer_;
};

absl::StatusOr<std::optional<ChatTemplate>> LoadChatTemplate(const std::string& model_dir,
                                                             const Tokenizer& tokenizer) {
  const std::string jinja = absl::StrCat(model_dir, "/chat_template.jinja");
  const std::string config = absl::StrCat(model_dir, "/tokenizer_config.json");
  auto jinja_text = ReadIfThere(jinja);
  if (!jinja_text.ok()) return jinja_text.status();
  auto config_text = ReadIfThere(config);
  if (!config_text.ok()) return config_text.status();
  const std::string& where = jinja_text->empty() ? config : jinja;
  const auto named = [&](const absl::Status& status) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": ", status.message()));
  };
  auto source = ChatTemplateSource(*jinja_text, *config_text);
  if (!source.ok()) return named(source.status());
  if (source->empty()) return std::optional<ChatTemplate>();
  auto chat = ChatTemplate::Parse(*source, tokenizer.role_texts());
  if (!chat.ok()) return named(chat.status());
  return std::optional<ChatTemplate>(*std::move(chat));
}

}  // namespace

absl::StatusOr<std::unique_ptr<const ModelText>> ModelText::Load(const std::string& model_dir) {
  auto tokenizer = Tokenizer::Load(model_dir);
  if (!tokenizer.ok()) return tokenizer.status();
  auto chat = LoadChatTemplate(model_dir, **tokenizer);
  if (!chat.ok()) return chat.status();
  return std::unique_ptr<const ModelText>(new ModelText(*std::move(tokenizer), *std::move(chat)));
}

absl::StatusOr<std::vector<TokenId>> ModelText::Encode(absl::string_view text, bool special,
                                                       size_t most) const {
  EncodeOptions options;
  options.max_tokens = most;
  options.add_special = special;
  return tokenizer_->Encode({text.data(), text.size()}, options);
}

absl::StatusOr<std::vector<TokenId>> ModelText::EncodeChat(absl::Span<const ChatTurn> turns,
                                                           bool add_generation_prompt, size_t most) const {
  if (!chat_) return absl::FailedPreconditionError("the model has no chat template");
  std::vector<ChatMessage> messages;
  messages.reserve(turns.size());
  for (const ChatTurn& turn : turns) messages.push_back({turn.role, turn.content});
  ChatRenderOptions render;
  render.add_generation_prompt = add_generation_prompt;
  render.now_unix_seconds =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  const auto segments = chat_->Render(messages, render);
  if (!segments.ok()) return segments.status();
  std::vector<TextSegment> pieces;
  for (const Segment& segment : *segments) pieces.push_back({segment.text, segment.from_template});
  EncodeOptions options;
  options.max_tokens = most;
  options.add_special = false;  // the template writes BOS itself
  return tokenizer_->EncodeSegments(pieces, options);
}

std::unique_ptr<StreamDecoder> ModelText::NewStreamDecoder(bool skip_special,
                                                           absl::Span<const TokenId> prompt) const {
  return std::make_unique<TokenizerStreamDecoder>(tokenizer_.get(), skip_special, prompt);
}

}  // namespace orrery
