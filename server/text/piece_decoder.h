#ifndef ORRERY_SERVER_TEXT_PIECE_DECODER_H_
#define ORRERY_SERVER_TEXT_PIECE_DECODER_H_

// The `decoder` of tokenizer.json applied to every piece once, at load: each id becomes the bytes it adds to
// a text, and what is left for run time is the special handling of the first piece. Supported: ByteLevel,
// Metaspace, and Sequence of Replace (of a string), ByteFallback, Fuse, Strip at the start.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"
#include "scheduler/base/ids.h"

namespace orrery {

class PieceDecoder {
 public:
  // `json` is the value of "decoder".
  static absl::StatusOr<PieceDecoder> FromJson(const nlohmann::json& json);

  // Adds the piece of the next id, as the vocabulary writes it; empty if the id has none. Added tokens are
  // taken literally where the decoder would change their bytes into others.
  void AddPiece(std::string_view piece, bool is_added, bool is_special);

  int32_t vocab_size() const { return static_cast<int32_t>(flags_.size()); }
  bool Has(TokenId id) const { return id >= 0 && id < vocab_size(); }
  bool IsSpecial(TokenId id) const { return Has(id) && flags_[static_cast<size_t>(id)] != 0; }
  std::string_view Bytes(TokenId id) const {
    if (!Has(id)) return {};
    const size_t begin = ends_[static_cast<size_t>(id)];
    return std::string_view(bytes_).substr(begin, ends_[static_cast<size_t>(id) + 1] - begin);
  }

  // A text loses up to this many leading `strip_content()`.
  int strip_count() const { return strip_count_; }
  const std::string& strip_content() const { return strip_content_; }
  // The first piece of a text loses all its spaces (Metaspace).
  bool first_piece_drops_spaces() const { return first_piece_drops_spaces_; }

 private:
  struct Replacement {
    std::string pattern, content;
  };
  absl::Status AddSteps(const nlohmann::json& json, int depth);

  bool byte_level_ = false, byte_fallback_ = false, fused_ = false;
  std::vector<Replacement> replacements_;
  size_t growth_ = 1;  // of a piece, by the replacements at most
  std::string strip_content_;
  int strip_count_ = 0;
  bool first_piece_drops_spaces_ = false;
  std::string bytes_;            // of all pieces
  std::vector<size_t> ends_{0};  // [ids + 1] piece i is bytes_[ends_[i], ends_[i + 1])
  std::vector<uint8_t> flags_;   // [ids] 1: special
};

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_PIECE_DECODER_H_
