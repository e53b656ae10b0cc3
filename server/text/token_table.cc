#include "server/text/token_table.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "server/text/json_object.h"
#include "server/text/utf8.h"

namespace orrery {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxTokenId = (int64_t{1} << 22) - 1;
constexpr size_t kMaxPieceBytes = 1 << 16;

absl::Status BadId(const char* where, const std::string& content) {
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": the id of '", content, "' is not a number from 0 to ", kMaxTokenId));
}

absl::Status TooMany(const char* where, size_t count) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", count, ", the limit is ", kMaxAddedTokens));
}

// Files sometimes forget to call the marks of turns and of the text's ends special; these names are never
// anything else.
bool LooksLikeControl(std::string_view content) {
  static constexpr std::string_view kNames[] = {"<s>",   "</s>",  "<bos>",           "<eos>",        "<pad>",
                                                "<unk>", "<eot>", "<start_of_turn>", "<end_of_turn>"};
  return (content.starts_with("<|") && content.ends_with("|>")) ||
         (content.starts_with("<\uFF5C") && content.ends_with("\uFF5C>")) ||
         std::find(std::begin(kNames), std::end(kNames), content) != std::end(kNames);
}

bool IsOneCharacter(std::string_view text) {
  return !text.empty() && DecodeValidUtf8(text.data()).length == text.size();
}

}  // namespace

absl::Status TokenTable::AddVocabulary(const std::vector<std::pair<std::string, int64_t>>& vocabulary) {
  vocabulary_.reserve(vocabulary.size());
  for (const auto& [piece, id] : vocabulary) {
    if (id < 0 || id > kMaxTokenId) return BadId("model.vocab", piece);
    if (piece.size() > kMaxPieceBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.vocab: piece ", id, " is longer than ", kMaxPieceBytes, " bytes"));
    }
    std::string& slot = PieceSlot(static_cast<TokenId>(id));
    if (!slot.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.vocab: '", slot, "' and '", piece, "' have the same id ", id));
    }
    slot = piece;
    vocabulary_.emplace(piece, static_cast<TokenId>(id));
  }
  return absl::OkStatus();
}

absl::Status TokenTable::AddTokens(const Json& list) {
  if (list.is_null()) return absl::OkStatus();
  if (!list.is_array()) return absl::InvalidArgumentError("added_tokens: a list is expected");
  if (list.size() > kMaxAddedTokens) return TooMany("added_tokens", list.size());
  for (const Json& item : list) {
    JsonObject object(item, "added_tokens");
    const int64_t id = object.Int("id", -1);
    if (!object.status().ok()) return object.status();
    if (absl::Status status = AddToken(item, id, "added_tokens", false); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status TokenTable::AddTokensOfConfig(const Json& decoder) {
  if (!decoder.is_object()) return absl::OkStatus();
  if (decoder.size() > kMaxAddedTokens) return TooMany("added_tokens_decoder", decoder.size());
  for (const auto& [key, item] : decoder.items()) {
    int64_t id = -1;
    std::from_chars(key.data(), key.data() + key.size(), id);
    if (absl::Status status = AddToken(item, id, "added_tokens_decoder", true); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status TokenTable::AddToken(const Json& json, int64_t id, const char* where, bool skip_known) {
  JsonObject object(json, where);
  AddedToken token;
  token.content = object.String("content");
  token.single_word = object.Bool("single_word", false);
  token.lstrip = object.Bool("lstrip", false);
  token.rstrip = object.Bool("rstrip", false);
  token.special = object.Bool("special", false);
  token.normalized = object.Bool("normalized", !token.special);
  if (!object.status().ok()) return object.status();
  if (id < 0 || id > kMaxTokenId) return BadId(where, token.content);
  token.id = static_cast<TokenId>(id);
  if (skip_known && (added_.contains(token.id) || added_ids_.contains(token.content)))
    return absl::OkStatus();
  return Insert(std::move(token), where);
}

absl::Status TokenTable::Insert(AddedToken token, const char* where) {
  if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": token ", token.id, " has ", token.content.size(),
                                                   " bytes, allowed are 1 to ", kMaxAddedTokenBytes));
  }
  added_bytes_ += token.content.size();
  if (added_bytes_ > kMaxAddedTokensTotalBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": more than ", kMaxAddedTokensTotalBytes, " bytes of added tokens"));
  }
  std::string& slot = PieceSlot(token.id);
  const auto in_vocabulary = vocabulary_.find(token.content);
  if ((!slot.empty() && slot != token.content) ||
      (in_vocabulary != vocabulary_.end() && in_vocabulary->second != token.id)) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": '", token.content, "' with id ", token.id, " contradicts the vocabulary"));
  }
  slot = token.content;
  if (!added_ids_.emplace(token.content, token.id).second) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": '", token.content, "' appears twice"));
  }
  const TokenId id = token.id;
  added_[id] = std::move(token);
  return absl::OkStatus();
}

absl::Status TokenTable::MarkSpecial(const std::set<std::string>& texts) {
  for (const std::string& text : texts) {
    const std::optional<TokenId> id = IdOf(text);
    if (!id.has_value()) continue;
    if (const auto it = added_.find(*id); it != added_.end()) {
      it->second.special = true;
    } else if (!IsOneCharacter(text)) {
      AddedToken token;
      token.id = *id;
      token.content = text;
      token.special = true;
      if (absl::Status status = Insert(std::move(token), "special_tokens_map.json"); !status.ok())
        return status;
    }
  }
  // A single character is a letter, whatever role it has (some checkpoints pad with "!"): one of the
  // vocabulary is left to the merges, and none is hidden or kept from users.
  for (auto it = added_.begin(); it != added_.end();) {
    AddedToken& token = it->second;
    const bool letter = IsOneCharacter(token.content);
    if (letter && token.special && vocabulary_.contains(token.content)) {
      added_ids_.erase(token.content);
      it = added_.erase(it);
      continue;
    }
    token.special = token.special && !letter;
    token.control = !letter && (token.special || LooksLikeControl(token.content));
    ++it;
  }
  return absl::OkStatus();
}

const AddedToken* TokenTable::FindAdded(TokenId id) const {
  const auto it = added_.find(id);
  return it == added_.end() ? nullptr : &it->second;
}

std::optional<TokenId> TokenTable::IdOf(const std::string& content) const {
  if (const auto it = added_ids_.find(content); it != added_ids_.end()) return it->second;
  if (const auto it = vocabulary_.find(content); it != vocabulary_.end()) return it->second;
  return std::nullopt;
}

std::string& TokenTable::PieceSlot(TokenId id) {
  const auto index = static_cast<size_t>(id);
  if (pieces_.size() <= index) pieces_.resize(index + 1);
  return pieces_[index];
}

}  // namespace orrery
