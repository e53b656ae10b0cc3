#include "server/text/piece_decoder.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/text/byte_alphabet.h"
#include "server/text/json_object.h"
#include "server/text/tokenizer_limits.h"

namespace orrery {
namespace {

// The byte of a piece such as <0x0A>, or -1.
int ByteOfPiece(std::string_view piece) {
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return -1;
  int byte = -1;
  const auto [end, error] = std::from_chars(piece.data() + 3, piece.data() + 5, byte, 16);
  return error == std::errc() && end == piece.data() + 5 ? byte : -1;
}

}  // namespace

absl::StatusOr<PieceDecoder> PieceDecoder::FromJson(const nlohmann::json& json) {
  PieceDecoder decoder;
  if (json.is_null())
    return absl::UnimplementedError("decoder: a tokenizer without a decoder is not supported");
  if (absl::Status status = decoder.AddSteps(json, 0); !status.ok()) return status;
  return decoder;
}

absl::Status PieceDecoder::AddSteps(const nlohmann::json& json, int depth) {
  JsonObject object(json, "decoder");
  const std::string type = object.String("type");
  if (!object.status().ok()) return object.status();
  if (type == "Sequence") {
    const nlohmann::json& parts = object.Child("decoders");
    if (!parts.is_array()) return absl::InvalidArgumentError("decoder.decoders: a list is expected");
    if (depth == kMaxSequenceDepth)
      return absl::InvalidArgumentError("decoder: Sequences are nested too deep");
    for (const nlohmann::json& part : parts) {
      if (absl::Status status = AddSteps(part, depth + 1); !status.ok()) return status;
    }
    return absl::OkStatus();
  }
  // After Fuse there is one text, after ByteLevel there are bytes: only Strip can follow those here.
  if ((byte_level_ || fused_) && type != "Strip" && type != "Fuse") {
    return absl::UnimplementedError(
        absl::StrCat("decoder: ", type, " after ByteLevel or Fuse is not supported"));
  }
  if (type == "ByteLevel") {
    byte_level_ = true;
  } else if (type == "ByteFallback") {
    byte_fallback_ = true;
  } else if (type == "Fuse") {
    fused_ = true;
  } else if (type == "Replace") {
    JsonObject pattern(object.Child("pattern"), "decoder.pattern");
    Replacement replacement{pattern.String("String"), object.String("content")};
    if (!pattern.status().ok()) return pattern.status();
    if (replacement.pattern.empty())
      return absl::UnimplementedError("decoder Replace: only a String pattern is supported");
    if (byte_fallback_)
      return absl::UnimplementedError("decoder: Replace after ByteFallback is not supported");
    growth_ *= std::max<size_t>(
        1, (replacement.content.size() + replacement.pattern.size() - 1) / replacement.pattern.size());
    if (growth_ > kMaxTextGrowth || replacements_.size() == kMaxTokenizerSteps) {
      return absl::InvalidArgumentError(absl::StrCat("decoder: at most ", kMaxTokenizerSteps,
                                                     " Replace steps that make a piece at most ",
                                                     kMaxTextGrowth, " times as long"));
    }
    replacements_.push_back(std::move(replacement));
  } else if (type == "Metaspace") {
    const bool add_prefix_space = object.Bool("add_prefix_space", true);
    first_piece_drops_spaces_ =
        object.String("prepend_scheme", add_prefix_space ? "always" : "never") != "never";
    replacements_.push_back({object.String("replacement", "\u2581"), " "});
    if (replacements_.back().pattern.empty() || replacements_.size() > kMaxTokenizerSteps)
      return absl::InvalidArgumentError("decoder Metaspace: empty replacement, or too many steps");
  } else if (type == "Strip") {
    const int64_t start = object.Int("start", 0), stop = object.Int("stop", 0);
    strip_content_ = object.String("content");
    if (!fused_ || stop != 0 || start < 0 || start > 64 || strip_content_.empty() || strip_count_ != 0) {
      return absl::UnimplementedError("decoder Strip: supported once, at the start, after Fuse");
    }
    strip_count_ = static_cast<int>(start);
  } else {
    return absl::UnimplementedError(absl::StrCat("decoder type '", type, "' is not supported"));
  }
  return object.status();
}

void PieceDecoder::AddPiece(std::string_view piece, bool is_added, bool is_special) {
  const int byte = byte_fallback_ ? ByteOfPiece(piece) : -1;
  if (byte >= 0) {
    bytes_.push_back(static_cast<char>(byte));
  } else if (byte_level_) {
    bytes_ += is_added ? std::string(piece) : BytesOfAlphabet(piece).value_or(std::string(piece));
  } else {
    std::string text(piece);
    for (const auto& [pattern, content] : replacements_)
      text = absl::StrReplaceAll(text, {{pattern, content}});
    bytes_ += text;
  }
  ends_.push_back(bytes_.size());
  flags_.push_back(is_special ? 1 : 0);
}

}  // namespace orrery
