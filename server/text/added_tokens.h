#ifndef ORRERY_SERVER_TEXT_ADDED_TOKENS_H_
#define ORRERY_SERVER_TEXT_ADDED_TOKENS_H_

// Finds added tokens in text before anything else looks at it: leftmost, longest, with the flags of
// tokenizer.json (lstrip and rstrip take the white space around in, single_word wants no word character
// beside it). A trie is walked from every position, so the time is linear in the text times the longest token
// (bounded below).

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "scheduler/base/ids.h"

namespace orrery {

struct AddedToken {
  TokenId id = -1;
  std::string content;
  bool single_word = false, lstrip = false, rstrip = false;
  bool normalized = false;  // is looked for in normalised text
  bool special = false;     // left out of text shown to users
  // Text of a user never becomes this token; only a chat template can write it.
  bool control = false;
};

inline constexpr size_t kMaxAddedTokens = size_t{1} << 20;
inline constexpr size_t kMaxAddedTokenBytes = 512;
inline constexpr size_t kMaxAddedTokensTotalBytes = size_t{1} << 22;

class AddedTokenFinder {
 public:
  // Adds a token that is looked for as `spelling`; an empty spelling is never found. `index` is what Find
  // reports.
  void Add(std::string_view spelling, const AddedToken& token);
  bool empty() const { return tokens_.empty(); }

  // Cuts `text` at tokens: calls `gap` for every stretch between them and `token` for every token, in order.
  // `allowed(begin, end)` says whether a control token may stand at these bytes.
  absl::Status Cut(std::string_view text, absl::FunctionRef<bool(size_t begin, size_t end)> allowed,
                   absl::FunctionRef<absl::Status(size_t begin, size_t end)> gap,
                   absl::FunctionRef<void(TokenId)> token) const;

 private:
  struct Token {
    TokenId id;
    bool single_word, lstrip, rstrip, control;
  };
  // The longest acceptable token at `pos`; null if there is none.
  const Token* Match(std::string_view text, size_t pos, absl::FunctionRef<bool(size_t, size_t)> allowed,
                     size_t* end) const;

  std::vector<Token> tokens_;
  std::array<int32_t, 256> roots_{};                 // node after the first byte; 0: none
  absl::flat_hash_map<uint64_t, int32_t> children_;  // node << 8 | byte -> node
  std::vector<int32_t> token_at_{-1};                // [nodes] index into tokens_; -1: none
};

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_ADDED_TOKENS_H_
