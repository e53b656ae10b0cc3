#ifndef ORRERY_SERVER_TEXT_TOKEN_TABLE_H_
#define ORRERY_SERVER_TEXT_TOKEN_TABLE_H_

// The ids of a tokenizer while its files are read: the vocabulary of the model and the added tokens, which
// may name pieces of the vocabulary again. Every error names the list and the token; the number and the bytes
// of added tokens, from whichever file, are bounded (added_tokens.h).

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "nlohmann/json_fwd.hpp"
#include "scheduler/base/ids.h"
#include "server/text/added_tokens.h"

namespace orrery {

class TokenTable {
 public:
  // model.vocab; an id that is not a number comes as -1.
  absl::Status AddVocabulary(const std::vector<std::pair<std::string, int64_t>>& vocabulary);
  // added_tokens of tokenizer.json; null is an empty list.
  absl::Status AddTokens(const nlohmann::json& list);
  // added_tokens_decoder of tokenizer_config.json; tokens that are known stay as they are.
  absl::Status AddTokensOfConfig(const nlohmann::json& decoder);
  // Makes the tokens with these texts special and decides which tokens are control tokens. Last call.
  absl::Status MarkSpecial(const std::set<std::string>& texts);

  int32_t size() const { return static_cast<int32_t>(pieces_.size()); }  // one more than the highest id
  // [ids] as the files write them; empty: the id has none.
  const std::vector<std::string>& pieces() const { return pieces_; }
  const absl::flat_hash_map<std::string, TokenId>& vocabulary() const { return vocabulary_; }
  const std::map<TokenId, AddedToken>& added() const { return added_; }
  // The added token of an id; null if it is none.
  const AddedToken* FindAdded(TokenId id) const;
  std::optional<TokenId> IdOf(const std::string& content) const;

 private:
  absl::Status AddToken(const nlohmann::json& json, int64_t id, const char* where, bool skip_known);
  absl::Status Insert(AddedToken token, const char* where);
  std::string& PieceSlot(TokenId id);

  std::vector<std::string> pieces_;
  absl::flat_hash_map<std::string, TokenId> vocabulary_;
  std::map<TokenId, AddedToken> added_;
  absl::flat_hash_map<std::string, TokenId> added_ids_;
  size_t added_bytes_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_TOKEN_TABLE_H_
