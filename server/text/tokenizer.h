#ifndef ORRERY_SERVER_TEXT_TOKENIZER_H_
#define ORRERY_SERVER_TEXT_TOKENIZER_H_

// Text to token ids and back, as tokenizer.json of a Hugging Face checkpoint says: byte-level BPE and
// SentencePiece-style BPE with byte fall-back. Whatever the file asks that is not supported is refused at
// load by name. Immutable after loading, so all of it may be used from many threads at once.
//
// Text that users write never becomes a control token: the strings of such tokens are encoded as plain text
// unless they stand in a segment that a chat template wrote. Control tokens are those that tokenizer.json
// calls special, those that tokenizer_config.json or special_tokens_map.json give a role (bos, eos, ...), and
// those whose names are never anything else (<|...|>, </s>, <end_of_turn>, ...); a single character never is
// one. Other added tokens are ordinary vocabulary and are found in any text.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "scheduler/base/ids.h"
#include "server/text/added_tokens.h"
#include "server/text/bpe.h"
#include "server/text/normalizer.h"
#include "server/text/piece_decoder.h"
#include "server/text/pre_tokenizer.h"

namespace orrery {

inline constexpr size_t kMaxTokenizerFileBytes = size_t{256} << 20;

// The texts of the files; the last two may be empty.
struct TokenizerFiles {
  std::string tokenizer_json;
  std::string tokenizer_config_json;
  std::string special_tokens_map_json;
};

// A part of a rendered prompt. Control tokens are recognised only where all their bytes are from the
// template.
struct TextSegment {
  std::string_view text;
  bool is_template = false;
};

struct EncodeOptions {
  bool add_special = true;     // what the post-processor adds, such as BOS
  bool parse_special = false;  // Encode only: the whole text counts as written by a template
  size_t max_bytes = size_t{8} << 20;
  size_t max_tokens = ~size_t{0};  // OUT_OF_RANGE with more, after the piece in which that shows
};

class Tokenizer {
 public:
  // Reads tokenizer.json and, where they exist, tokenizer_config.json and special_tokens_map.json of a
  // folder.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Load(const std::filesystem::path& folder);
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Parse(const TokenizerFiles& files);

  // Errors: text longer than max_bytes, text that is not UTF-8 (with the offset), a character without a
  // token.
  absl::StatusOr<std::vector<TokenId>> Encode(std::string_view text, const EncodeOptions& options = {}) const;
  // The segments are one text: the result is that of the concatenation, but for control tokens.
  absl::StatusOr<std::vector<TokenId>> EncodeSegments(absl::Span<const TextSegment> segments,
                                                      const EncodeOptions& options = {}) const;

  // Ids without a piece give nothing. For a stream of ids use Detokenizer, which gives the same text.
  std::string Decode(absl::Span<const TokenId> ids, bool skip_special = true) const;

  // One more than the highest id. The model's vocabulary may be larger (padding).
  int32_t vocab_size() const { return decoder_.vocab_size(); }
  std::optional<TokenId> bos_id() const { return bos_.id; }
  std::optional<TokenId> eos_id() const { return eos_.id; }
  std::optional<TokenId> pad_id() const { return pad_.id; }
  // The texts of bos_token, eos_token, pad_token and so on as tokenizer_config.json and
  // special_tokens_map.json write them; of the first two an empty one where there is none. Chat templates ask
  // for them.
  const std::map<std::string, std::string>& role_texts() const { return role_texts_; }

  bool IsSpecial(TokenId id) const { return decoder_.IsSpecial(id); }
  // The bytes that a token adds in the middle of a text; they may be a part of a character.
  std::string_view TokenBytes(TokenId id) const { return decoder_.Bytes(id); }
  const PieceDecoder& decoder() const { return decoder_; }

  // The id of an added token by its text.
  std::optional<TokenId> IdOfAdded(std::string_view content) const;

  // 32 hexadecimal digits: XXH3-128 of the three files. Equal digests mean equal tokenizers.
  const std::string& digest() const { return digest_; }

 private:
  friend class TokenizerBuilder;
  struct Role {
    std::string text;
    std::optional<TokenId> id;
  };
  struct Input;

  Tokenizer(Normalizer normalizer, PreTokenizer pre_tokenizer, Bpe bpe, PieceDecoder decoder);
  absl::Status EncodeGap(const Input& input, size_t begin, size_t end, size_t max_tokens,
                         Bpe::Workspace* work, std::vector<TokenId>* ids) const;

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  Bpe bpe_;
  PieceDecoder decoder_;
  std::vector<AddedToken> added_tokens_;
  AddedTokenFinder raw_finder_;         // tokens looked for in the text as given
  AddedTokenFinder normalized_finder_;  // and in normalised text
  bool has_normalized_control_ = false;
  std::vector<TokenId> prefix_, suffix_;  // what the post-processor puts around a text
  Role bos_, eos_, pad_;
  std::map<std::string, std::string> role_texts_;
  std::string digest_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_TOKENIZER_H_
