// A text codec without a model: ids 0 to 255 are bytes, 256 is BOS, 257 is EOS.
#ifndef ORRERY_TESTS_SERVER_BYTE_CODEC_H_
#define ORRERY_TESTS_SERVER_BYTE_CODEC_H_

#include <memory>
#include <string>
#include <vector>

#include "server/delivery/text_codec.h"

namespace orrery::testing {

inline constexpr int32_t kByteVocab = 258;
inline constexpr TokenId kByteBos = 256, kByteEos = 257;

class ByteCodec : public TextCodec {
 public:
  absl::StatusOr<std::vector<TokenId>> Encode(absl::string_view text, bool special,
                                              size_t most) const override {
    if (text.size() + special > most) return absl::OutOfRangeError("too many");
    std::vector<TokenId> ids;
    if (special) ids.push_back(kByteBos);
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  absl::StatusOr<std::vector<TokenId>> EncodeChat(absl::Span<const ChatTurn> turns, bool open,
                                                  size_t most) const override {
    std::string text;
    for (const ChatTurn& turn : turns) text += turn.role + ": " + turn.content + "\n";
    if (open) text += "assistant: ";
    return Encode(text, true, most);
  }
  std::unique_ptr<StreamDecoder> NewStreamDecoder(bool, absl::Span<const TokenId>) const override {
    return std::make_unique<Decoder>();
  }

 private:
  // Holds back the bytes of an incomplete character, as a real one does. Trusts that leads announce lengths.
  class Decoder final : public StreamDecoder {
   public:
    void Append(TokenId token, std::string* text) override {
      if (token >= 256) return;
      held_.push_back(static_cast<char>(token));
      const auto lead = static_cast<unsigned char>(held_[0]);
      const size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
      if (held_.size() < length) return;
      *text += held_;
      held_.clear();
    }
    void Flush(std::string* text) override {
      if (!held_.empty()) *text += "\xEF\xBF\xBD";
      held_.clear();
    }

   private:
    std::string held_;
  };
};

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_SERVER_BYTE_CODEC_H_
