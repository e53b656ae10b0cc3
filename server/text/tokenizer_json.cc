// Reading of a tokenizer's files: everything that turns JSON into the parts of a Tokenizer.

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/text/byte_alphabet.h"
#include "server/text/json_object.h"
#include "server/text/tokenizer.h"
#include "server/text/utf8.h"

namespace orrery {
namespace {

using Json = nlohmann::json;

using Event = Json::parse_event_t;

constexpr int64_t kMaxTokenId = (int64_t{1} << 22) - 1;
constexpr size_t kMaxPieceBytes = 1 << 16;
constexpr size_t kMaxTemplateTokens = 16;

absl::StatusOr<Json> ParseJson(const std::string& text, const char* file,
                               const Json::parser_callback_t& keep = nullptr) {
  try {
    return Json::parse(text, keep);
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", error.what()));
  }
}

// The vocabulary and the merges, taken out of the file while it is parsed: as JSON values they would cost
// several times the memory and the time.
class LargeLists {
 public:
  std::vector<std::pair<std::string, int64_t>> vocabulary;  // id -1: not an integer
  std::vector<std::pair<std::string, std::string>> merges;  // empty strings: not a pair

  // The parser's callback: true keeps the value in the document.
  bool Keep(int depth, Event event, const Json& value) {
    if (event == Event::key && depth <= 2) {
      (depth == 1 ? section_ : list_) = value.get_ref<const std::string&>();
      return true;
    }
    if (depth <= 2 || section_ != "model") return true;
    if (list_ == "vocab") return KeepVocabulary(depth, event, value);
    return list_ == "merges" ? KeepMerge(depth, event, value) : true;
  }

 private:
  bool KeepVocabulary(int depth, Event event, const Json& value) {
    if (depth != 3) return false;
    if (event == Event::key) vocabulary.emplace_back(value.get_ref<const std::string&>(), -1);
    if (event == Event::value && value.is_number_integer()) vocabulary.back().second = value.get<int64_t>();
    return false;
  }

  // "left right" or ["left", "right"]
  bool KeepMerge(int depth, Event event, const Json& value) {
    const bool starts = event == Event::array_start || event == Event::object_start;
    if (depth == 3 && event == Event::value) {
      merges.emplace_back();
      if (!value.is_string()) return false;
      const auto& text = value.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) return false;
      merges.back() = {text.substr(0, space), text.substr(space + 1)};
    } else if (depth == 3 && starts) {
      merges.emplace_back();
      part_ = 0;
    } else if (depth == 4 && (starts || event == Event::value)) {
      const bool fits = part_ < 2 && value.is_string();
      if (fits)
        (part_ == 0 ? merges.back().first : merges.back().second) = value.get_ref<const std::string&>();
      if (!fits) merges.back() = {};
      part_ = fits ? part_ + 1 : 2;
    }
    return starts || event == Event::key;  // what starts must be kept for its parts to be reported
  }

  std::string section_, list_;  // the last key of the document and of the object in it
  int part_ = 0;
};

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path.string(), ": cannot be opened"));
  std::string text;
  char buffer[1 << 16];
  while (file.read(buffer, sizeof(buffer)) || file.gcount() > 0) {
    text.append(buffer, static_cast<size_t>(file.gcount()));
    if (text.size() > kMaxTokenizerFileBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(path.string(), ": larger than ", kMaxTokenizerFileBytes, " bytes"));
    }
  }
  if (file.bad()) return absl::DataLossError(absl::StrCat(path.string(), ": reading failed"));
  return text;
}

absl::Status BadId(const char* where, const std::string& content) {
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": the id of '", content, "' is not a number from 0 to ", kMaxTokenId));
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

class TokenizerBuilder {
 public:
  absl::StatusOr<std::unique_ptr<const Tokenizer>> Build(const TokenizerFiles& files);

 private:
  absl::Status ReadModel(const Json& model, const LargeLists& lists);
  absl::Status ReadVocabulary(const LargeLists& lists);
  absl::Status ReadAddedToken(const Json& json, int64_t id, const char* where, bool replace);
  absl::Status ReadAddedTokens(const Json& list);
  absl::Status ReadConfig(const Json& config);
  absl::Status ReadRoles(const Json& config);
  absl::Status ReadMerges(const LargeLists& lists);
  absl::Status ReadPostProcessor(const Json& json, int depth);
  absl::Status ReadTemplate(const Json& json);
  void AddBosFromConfig(const Json& post_processor);
  void MarkControl();
  std::optional<TokenId> IdOf(const std::string& content) const;

  std::vector<std::string> pieces_;  // [ids] as the file writes them; added tokens too
  absl::flat_hash_map<std::string, TokenId> vocabulary_;
  std::map<TokenId, AddedToken> added_;
  std::map<std::string, TokenId> added_ids_;
  std::map<std::string, std::string> roles_;  // "bos_token" -> its text
  std::set<std::string> role_texts_;
  bool add_bos_ = false, add_eos_ = false;
  std::vector<TokenId> prefix_, suffix_;
  BpeSpec spec_;
};

absl::Status TokenizerBuilder::ReadModel(const Json& model, const LargeLists& lists) {
  JsonObject object(model, "model");
  const std::string type = object.String("type", "BPE");
  const std::string prefix = object.String("continuing_subword_prefix");
  const std::string suffix = object.String("end_of_word_suffix");
  const std::string unknown = object.String("unk_token");
  spec_.fuse_unknown = object.Bool("fuse_unk", false);
  spec_.byte_fallback = object.Bool("byte_fallback", false);
  spec_.ignore_merges = object.Bool("ignore_merges", false);
  if (!object.status().ok()) return object.status();
  if (type != "BPE")
    return absl::UnimplementedError(absl::StrCat("model type '", type, "' is not supported"));
  if (!prefix.empty()) return absl::UnimplementedError("model.continuing_subword_prefix is not supported");
  if (!suffix.empty()) return absl::UnimplementedError("model.end_of_word_suffix is not supported");
  const Json& dropout = object.Child("dropout");
  if (!dropout.is_null() && dropout != 0) return absl::UnimplementedError("model.dropout is not supported");
  if (!object.Child("vocab").is_object())
    return absl::InvalidArgumentError("model.vocab: an object is expected");
  if (!object.Child("merges").is_array())
    return absl::InvalidArgumentError("model.merges: a list is expected");
  if (absl::Status status = ReadVocabulary(lists); !status.ok()) return status;
  if (!unknown.empty()) {
    const auto it = vocabulary_.find(unknown);
    if (it == vocabulary_.end()) return absl::InvalidArgumentError("model.unk_token: not in the vocabulary");
    spec_.unknown = it->second;
  }
  return absl::OkStatus();
}

absl::Status TokenizerBuilder::ReadVocabulary(const LargeLists& lists) {
  vocabulary_.reserve(lists.vocabulary.size());
  for (const auto& [piece, id] : lists.vocabulary) {
    if (id < 0 || id > kMaxTokenId) return BadId("model.vocab", piece);
    if (piece.size() > kMaxPieceBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.vocab: piece ", id, " is longer than ", kMaxPieceBytes, " bytes"));
    }
    if (pieces_.size() <= static_cast<size_t>(id)) pieces_.resize(static_cast<size_t>(id) + 1);
    std::string& slot = pieces_[static_cast<size_t>(id)];
    if (!slot.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.vocab: '", slot, "' and '", piece, "' have the same id ", id));
    }
    slot = piece;
    vocabulary_.emplace(piece, static_cast<TokenId>(id));
  }
  return absl::OkStatus();
}

absl::Status TokenizerBuilder::ReadAddedToken(const Json& json, int64_t id, const char* where, bool replace) {
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
  if (!replace && (added_.count(token.id) != 0 || added_ids_.count(token.content) != 0))
    return absl::OkStatus();
  if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": token ", id, " has ", token.content.size(),
                                                   " bytes, allowed are 1 to ", kMaxAddedTokenBytes));
  }
  if (pieces_.size() <= static_cast<size_t>(id)) pieces_.resize(static_cast<size_t>(id) + 1);
  std::string& slot = pieces_[static_cast<size_t>(id)];
  const auto in_vocabulary = vocabulary_.find(token.content);
  if ((!slot.empty() && slot != token.content) ||
      (in_vocabulary != vocabulary_.end() && in_vocabulary->second != token.id)) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": '", token.content, "' with id ", id, " contradicts the vocabulary"));
  }
  slot = token.content;
  if (!added_ids_.emplace(token.content, token.id).second) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": '", token.content, "' appears twice"));
  }
  added_[token.id] = std::move(token);
  return absl::OkStatus();
}

absl::Status TokenizerBuilder::ReadAddedTokens(const Json& list) {
  if (list.is_null()) return absl::OkStatus();
  if (!list.is_array()) return absl::InvalidArgumentError("added_tokens: a list is expected");
  if (list.size() > kMaxAddedTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("added_tokens: ", list.size(), ", the limit is ", kMaxAddedTokens));
  }
  for (const Json& item : list) {
    JsonObject object(item, "added_tokens");
    const int64_t id = object.Int("id", -1);
    if (!object.status().ok()) return object.status();
    if (absl::Status status = ReadAddedToken(item, id, "added_tokens", true); !status.ok()) return status;
  }
  size_t total_bytes = 0;
  for (const auto& [id, token] : added_) total_bytes += token.content.size();
  if (total_bytes > kMaxAddedTokensTotalBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "added_tokens: ", total_bytes, " bytes in all, the limit is ", kMaxAddedTokensTotalBytes));
  }
  return absl::OkStatus();
}

// tokenizer_config.json: added tokens that tokenizer.json lacks, and the roles.
absl::Status TokenizerBuilder::ReadConfig(const Json& config) {
  JsonObject object(config, "tokenizer_config.json");
  add_bos_ = object.Bool("add_bos_token", false);
  add_eos_ = object.Bool("add_eos_token", false);
  if (!object.status().ok()) return object.status();
  const Json& more = object.Child("added_tokens_decoder");
  if (more.is_object()) {
    if (more.size() > kMaxAddedTokens)
      return absl::InvalidArgumentError("added_tokens_decoder: too many tokens");
    for (const auto& [key, item] : more.items()) {
      int64_t id = -1;
      std::from_chars(key.data(), key.data() + key.size(), id);
      if (absl::Status status = ReadAddedToken(item, id, "added_tokens_decoder", false); !status.ok())
        return status;
    }
  }
  return ReadRoles(config);
}

absl::Status TokenizerBuilder::ReadRoles(const Json& config) {
  if (!config.is_object())
    return absl::InvalidArgumentError("special_tokens_map.json: an object is expected");
  const auto text_of = [](const Json& value) -> std::string {
    if (value.is_string()) return value.get<std::string>();
    if (value.is_object() && value.contains("content") && value["content"].is_string()) {
      return value["content"].get<std::string>();
    }
    return "";
  };
  for (const char* role :
       {"bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"}) {
    const auto it = config.find(role);
    if (it == config.end()) continue;
    const std::string text = text_of(*it);
    if (text.empty()) continue;
    roles_.emplace(role, text);
    role_texts_.insert(text);
  }
  const auto more = config.find("additional_special_tokens");
  if (more == config.end() || !more->is_array()) return absl::OkStatus();
  for (const Json& value : *more) role_texts_.insert(text_of(value));
  return absl::OkStatus();
}

std::optional<TokenId> TokenizerBuilder::IdOf(const std::string& content) const {
  if (const auto it = added_ids_.find(content); it != added_ids_.end()) return it->second;
  if (const auto it = vocabulary_.find(content); it != vocabulary_.end()) return it->second;
  return std::nullopt;
}

void TokenizerBuilder::MarkControl() {
  for (const std::string& text : role_texts_) {
    const std::optional<TokenId> id = IdOf(text);
    if (!id.has_value()) continue;
    const auto [it, is_new] = added_.try_emplace(*id);
    it->second.special = true;
    if (!is_new) continue;
    it->second.id = *id;
    it->second.content = text;
    added_ids_.emplace(text, *id);
  }
  spec_.is_control.assign(pieces_.size(), false);
  for (auto& [id, token] : added_) {
    // A single character is a letter of the vocabulary (some checkpoints pad with "!"), so it stays one.
    token.control = (token.special || LooksLikeControl(token.content)) && !IsOneCharacter(token.content);
    spec_.is_control[static_cast<size_t>(id)] = token.control;
  }
}

absl::Status TokenizerBuilder::ReadMerges(const LargeLists& lists) {
  spec_.merges.reserve(lists.merges.size());
  spec_.merged.reserve(lists.merges.size());
  std::string whole;
  for (size_t i = 0; i < lists.merges.size(); ++i) {
    const auto& [left, right] = lists.merges[i];
    if (left.empty() || right.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("model.merges[", i, "]: a pair of pieces is expected"));
    }
    whole.assign(left).append(right);
    const auto left_id = vocabulary_.find(left), right_id = vocabulary_.find(right),
               id = vocabulary_.find(whole);
    if (left_id == vocabulary_.end() || right_id == vocabulary_.end() || id == vocabulary_.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.merges[", i, "]: '", left, "' + '", right, "' is not in the vocabulary"));
    }
    spec_.merges.emplace_back(left_id->second, right_id->second);
    // Plain text must not merge into a control token, whatever it spells.
    const auto merged = static_cast<size_t>(id->second);
    spec_.merged.push_back(spec_.is_control[merged] || spec_.pieces[merged].empty() ? -1 : id->second);
  }
  return absl::OkStatus();
}

absl::Status TokenizerBuilder::ReadPostProcessor(const Json& json, int depth) {
  if (json.is_null()) return absl::OkStatus();
  JsonObject object(json, "post_processor");
  const std::string type = object.String("type");
  if (!object.status().ok()) return object.status();
  if (type == "ByteLevel") return absl::OkStatus();  // moves offsets only
  if (type == "TemplateProcessing") return ReadTemplate(json);
  if (type == "Sequence") {
    const Json& parts = object.Child("processors");
    if (!parts.is_array() || parts.size() > 8 || depth == 4) {
      return absl::InvalidArgumentError("post_processor.processors: a list of at most 8 is expected");
    }
    for (const Json& part : parts) {
      if (absl::Status status = ReadPostProcessor(part, depth + 1); !status.ok()) return status;
    }
    return absl::OkStatus();
  }
  return absl::UnimplementedError(absl::StrCat("post_processor type '", type, "' is not supported"));
}

absl::Status TokenizerBuilder::ReadTemplate(const Json& json) {
  JsonObject object(json, "post_processor");
  const Json& items = object.Child("single");
  const Json& special = object.Child("special_tokens");
  if (!items.is_array()) return absl::InvalidArgumentError("post_processor.single: a list is expected");
  std::vector<TokenId> before, after;
  bool seen_text = false;
  for (const Json& item : items) {
    if (item.is_object() && item.contains("Sequence")) {
      if (std::exchange(seen_text, true))
        return absl::UnimplementedError("post_processor.single: more than one Sequence");
      continue;
    }
    if (!item.is_object() || !item.contains("SpecialToken")) {
      return absl::InvalidArgumentError("post_processor.single: Sequence or SpecialToken is expected");
    }
    JsonObject reference(item["SpecialToken"], "post_processor.single");
    const std::string name = reference.String("id");
    if (!special.is_object() || !special.contains(name) || !special[name].is_object() ||
        !special[name].contains("ids") || !special[name]["ids"].is_array()) {
      return absl::InvalidArgumentError(
          absl::StrCat("post_processor.special_tokens: no ids for '", name, "'"));
    }
    for (const Json& id : special[name]["ids"]) {
      const int64_t value = id.is_number_integer() ? id.get<int64_t>() : -1;
      if (value < 0 || value >= static_cast<int64_t>(pieces_.size()))
        return BadId("post_processor.special_tokens", name);
      (seen_text ? after : before).push_back(static_cast<TokenId>(value));
    }
    if (before.size() + after.size() > kMaxTemplateTokens) {
      return absl::InvalidArgumentError("post_processor.single: too many special tokens");
    }
  }
  if (!seen_text) return absl::InvalidArgumentError("post_processor.single: the text itself is missing");
  prefix_.insert(prefix_.begin(), before.begin(), before.end());
  suffix_.insert(suffix_.end(), after.begin(), after.end());
  return absl::OkStatus();
}

// A file without a post-processor leaves BOS and EOS to tokenizer_config.json.
void TokenizerBuilder::AddBosFromConfig(const Json& post_processor) {
  if (!post_processor.is_null()) return;
  const auto id_of_role = [this](const char* role) -> std::optional<TokenId> {
    const auto it = roles_.find(role);
    return it == roles_.end() ? std::nullopt : IdOf(it->second);
  };
  if (const auto bos = id_of_role("bos_token"); add_bos_ && bos.has_value()) prefix_.push_back(*bos);
  if (const auto eos = id_of_role("eos_token"); add_eos_ && eos.has_value()) suffix_.push_back(*eos);
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> TokenizerBuilder::Build(const TokenizerFiles& files) {
  LargeLists lists;
  auto json =
      ParseJson(files.tokenizer_json, "tokenizer.json",
                [&lists](int depth, Event event, Json& value) { return lists.Keep(depth, event, value); });
  if (!json.ok()) return json.status();
  JsonObject root(*json, "tokenizer.json");
  if (!root.status().ok()) return root.status();
  const Json& model = root.Child("model");
  if (absl::Status status = ReadModel(model, lists); !status.ok()) return status;
  if (absl::Status status = ReadAddedTokens(root.Child("added_tokens")); !status.ok()) return status;
  if (!files.tokenizer_config_json.empty()) {
    auto config = ParseJson(files.tokenizer_config_json, "tokenizer_config.json");
    if (!config.ok()) return config.status();
    if (absl::Status status = ReadConfig(*config); !status.ok()) return status;
  }
  if (!files.special_tokens_map_json.empty()) {
    auto map = ParseJson(files.special_tokens_map_json, "special_tokens_map.json");
    if (!map.ok()) return map.status();
    if (absl::Status status = ReadRoles(*map); !status.ok()) return status;
  }
  if (pieces_.empty()) return absl::InvalidArgumentError("model.vocab: empty");
  MarkControl();

  auto normalizer = Normalizer::FromJson(root.Child("normalizer"));
  if (!normalizer.ok()) return normalizer.status();
  auto pre_tokenizer = PreTokenizer::FromJson(root.Child("pre_tokenizer"));
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  auto decoder = PieceDecoder::FromJson(root.Child("decoder"));
  if (!decoder.ok()) return decoder.status();
  if (absl::Status status = ReadPostProcessor(root.Child("post_processor"), 0); !status.ok()) return status;
  AddBosFromConfig(root.Child("post_processor"));

  spec_.byte_level = pre_tokenizer->byte_level();
  spec_.pieces.resize(pieces_.size());
  for (const auto& [piece, id] : vocabulary_) {
    std::string& slot = spec_.pieces[static_cast<size_t>(id)];
    slot = spec_.byte_level ? BytesOfAlphabet(piece).value_or("") : piece;
  }
  for (size_t id = 0; id < pieces_.size(); ++id) {
    const auto it = added_.find(static_cast<TokenId>(id));
    std::string piece = pieces_[id];
    // What was found in normalised text stands for that text.
    if (it != added_.end() && it->second.normalized) normalizer->Apply(&piece, nullptr);
    decoder->AddPiece(piece, it != added_.end(), it != added_.end() && it->second.special);
  }
  if (absl::Status status = ReadMerges(lists); !status.ok()) return status;
  auto bpe = Bpe::Create(std::move(spec_));
  if (!bpe.ok()) return bpe.status();

  std::unique_ptr<Tokenizer> tokenizer(
      new Tokenizer(*std::move(normalizer), *std::move(pre_tokenizer), *std::move(bpe), *std::move(decoder)));
  tokenizer->prefix_ = prefix_;
  tokenizer->suffix_ = suffix_;
  for (auto& [id, token] : added_) {
    if (token.normalized) {
      std::string spelling = token.content;
      tokenizer->normalizer_.Apply(&spelling, nullptr);
      tokenizer->normalized_finder_.Add(spelling, token);
      tokenizer->has_normalized_control_ |= token.control;
    } else {
      tokenizer->raw_finder_.Add(token.content, token);
    }
    tokenizer->added_tokens_.push_back(token);
  }
  const auto set_role = [&](const char* name, Tokenizer::Role* role) {
    if (const auto it = roles_.find(name); it != roles_.end()) *role = {it->second, IdOf(it->second)};
  };
  set_role("bos_token", &tokenizer->bos_);
  set_role("eos_token", &tokenizer->eos_);
  set_role("pad_token", &tokenizer->pad_);
  // Without a config file the token that the post-processor puts first is the model's BOS.
  if (!tokenizer->bos_.id.has_value() && prefix_.size() == 1) {
    tokenizer->bos_ = {pieces_[static_cast<size_t>(prefix_[0])], prefix_[0]};
  }
  XXH3_state_t hash;
  XXH3_128bits_reset(&hash);
  for (const std::string* text :
       {&files.tokenizer_json, &files.tokenizer_config_json, &files.special_tokens_map_json}) {
    const uint64_t size = text->size();
    XXH3_128bits_update(&hash, &size, sizeof(size));
    XXH3_128bits_update(&hash, text->data(), text->size());
  }
  const XXH128_hash_t digest = XXH3_128bits_digest(&hash);
  tokenizer->digest_ = absl::StrFormat("%016x%016x", digest.high64, digest.low64);
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Parse(const TokenizerFiles& files) {
  for (const std::string* text :
       {&files.tokenizer_json, &files.tokenizer_config_json, &files.special_tokens_map_json}) {
    if (text->size() > kMaxTokenizerFileBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer: a file is larger than ", kMaxTokenizerFileBytes, " bytes"));
    }
  }
  return TokenizerBuilder().Build(files);
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Load(const std::filesystem::path& folder) {
  TokenizerFiles files;
  auto text = ReadFile(folder / "tokenizer.json");
  if (!text.ok()) return text.status();
  files.tokenizer_json = *std::move(text);
  const std::pair<const char*, std::string*> optional[] = {
      {"tokenizer_config.json", &files.tokenizer_config_json},
      {"special_tokens_map.json", &files.special_tokens_map_json}};
  for (const auto& [name, content] : optional) {
    std::error_code error;
    if (!std::filesystem::exists(folder / name, error)) continue;
    text = ReadFile(folder / name);
    if (!text.ok()) return text.status();
    *content = *std::move(text);
  }
  auto tokenizer = Parse(files);
  if (tokenizer.ok()) return tokenizer;
  return absl::Status(tokenizer.status().code(),
                      absl::StrCat(folder.string(), ": ", tokenizer.status().message()));
}

}  // namespace orrery
