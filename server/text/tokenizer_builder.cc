// The parts of tokenizer.json and the files beside it put together to a Tokenizer.

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/text/byte_alphabet.h"
#include "server/text/json_object.h"
#include "server/text/post_processor.h"
#include "server/text/special_roles.h"
#include "server/text/token_table.h"
#include "server/text/tokenizer.h"
#include "server/text/tokenizer_document.h"

namespace orrery {
namespace {

using Json = nlohmann::json;

std::string DigestOf(const TokenizerFiles& files) {
  XXH3_state_t hash;
  XXH3_128bits_reset(&hash);
  for (const std::string* text :
       {&files.tokenizer_json, &files.tokenizer_config_json, &files.special_tokens_map_json}) {
    const uint64_t size = text->size();
    XXH3_128bits_update(&hash, &size, sizeof(size));
    XXH3_128bits_update(&hash, text->data(), text->size());
  }
  const XXH128_hash_t digest = XXH3_128bits_digest(&hash);
  return absl::StrFormat("%016x%016x", digest.high64, digest.low64);
}

}  // namespace

class TokenizerBuilder {
 public:
  absl::StatusOr<std::unique_ptr<const Tokenizer>> Build(const TokenizerFiles& files);

 private:
  absl::Status ReadTokens(const TokenizerFiles& files);
  absl::Status ReadModel(const Json& model);
  absl::Status ReadConfig(const Json& config);
  absl::Status ReadParts();
  void FillPieces();
  absl::Status ReadMerges();
  void SurroundByConfig();
  void AddFinders(Tokenizer* tokenizer) const;
  void SetRoles(Tokenizer* tokenizer) const;
  Tokenizer::Role RoleOf(const char* role) const;

  TokenizerDocument document_;
  TokenTable tokens_;
  SpecialRoles roles_;
  // Whether tokenizer_config.json alone says what surrounds a text, and what it says.
  bool config_decides_ = false;
  bool add_bos_ = false, add_eos_ = false;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  PieceDecoder decoder_;
  PostProcessor post_processor_;
  BpeSpec spec_;
};

absl::Status TokenizerBuilder::ReadModel(const Json& model) {
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
  if (absl::Status status = tokens_.AddVocabulary(document_.vocabulary); !status.ok()) return status;
  if (unknown.empty()) return absl::OkStatus();
  const auto it = tokens_.vocabulary().find(unknown);
  if (it == tokens_.vocabulary().end())
    return absl::InvalidArgumentError("model.unk_token: not in the vocabulary");
  spec_.unknown = it->second;
  return absl::OkStatus();
}

// tokenizer_config.json: added tokens that tokenizer.json lacks, and the roles.
absl::Status TokenizerBuilder::ReadConfig(const Json& config) {
  JsonObject object(config, "tokenizer_config.json");
  // These classes make a post-processor of their own from the two switches whatever tokenizer.json has.
  const std::string tokenizer_class = object.String("tokenizer_class");
  config_decides_ = tokenizer_class == "LlamaTokenizer" || tokenizer_class == "LlamaTokenizerFast";
  add_bos_ = object.Bool("add_bos_token", config_decides_);
  add_eos_ = object.Bool("add_eos_token", false);
  if (!object.status().ok()) return object.status();
  absl::Status status = tokens_.AddTokensOfConfig(object.Child("added_tokens_decoder"));
  return status.ok() ? roles_.Read(config, "tokenizer_config.json") : status;
}

absl::Status TokenizerBuilder::ReadTokens(const TokenizerFiles& files) {
  JsonObject root(document_.root, "tokenizer.json");
  if (!root.status().ok()) return root.status();
  if (absl::Status status = ReadModel(root.Child("model")); !status.ok()) return status;
  if (absl::Status status = tokens_.AddTokens(root.Child("added_tokens")); !status.ok()) return status;
  if (!files.tokenizer_config_json.empty()) {
    const auto config = ParseJson(files.tokenizer_config_json, "tokenizer_config.json");
    if (!config.ok()) return config.status();
    if (absl::Status status = ReadConfig(*config); !status.ok()) return status;
  }
  if (!files.special_tokens_map_json.empty()) {
    const auto map = ParseJson(files.special_tokens_map_json, "special_tokens_map.json");
    if (!map.ok()) return map.status();
    if (absl::Status status = roles_.Read(*map, "special_tokens_map.json"); !status.ok()) return status;
  }
  if (tokens_.size() == 0) return absl::InvalidArgumentError("model.vocab: empty");
  return tokens_.MarkSpecial(roles_.texts());
}

// What surrounds the model: normalizer, pre_tokenizer, decoder, post_processor.
absl::Status TokenizerBuilder::ReadParts() {
  const JsonObject root(document_.root, "tokenizer.json");
  auto normalizer = Normalizer::FromJson(root.Child("normalizer"));
  if (!normalizer.ok()) return normalizer.status();
  auto pre_tokenizer = PreTokenizer::FromJson(root.Child("pre_tokenizer"));
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  auto decoder = PieceDecoder::FromJson(root.Child("decoder"));
  if (!decoder.ok()) return decoder.status();
  auto post_processor = PostProcessor::FromJson(root.Child("post_processor"), tokens_.size());
  if (!post_processor.ok()) return post_processor.status();
  normalizer_ = *std::move(normalizer);
  pre_tokenizer_ = *std::move(pre_tokenizer);
  decoder_ = *std::move(decoder);
  post_processor_ = *std::move(post_processor);
  if (config_decides_ || (post_processor_.prefix.empty() && post_processor_.suffix.empty()))
    SurroundByConfig();
  return absl::OkStatus();
}

// BOS and EOS as tokenizer_config.json switches them. Without a token to add tokenizer.json's stay.
void TokenizerBuilder::SurroundByConfig() {
  const auto bos = RoleOf("bos_token").id, eos = RoleOf("eos_token").id;
  if (!add_bos_) post_processor_.prefix.clear();
  if (!add_eos_) post_processor_.suffix.clear();
  if (add_bos_ && bos.has_value()) post_processor_.prefix = {*bos};
  if (add_eos_ && eos.has_value()) post_processor_.suffix = {*eos};
}

// The pieces as the model encodes them and as the decoder shows them.
void TokenizerBuilder::FillPieces() {
  spec_.byte_level = pre_tokenizer_.byte_level();
  spec_.pieces.resize(tokens_.pieces().size());
  for (const auto& [piece, id] : tokens_.vocabulary()) {
    spec_.pieces[static_cast<size_t>(id)] = spec_.byte_level ? BytesOfAlphabet(piece).value_or("") : piece;
  }
  spec_.is_control.assign(tokens_.pieces().size(), false);
  for (TokenId id = 0; id < tokens_.size(); ++id) {
    const AddedToken* added = tokens_.FindAdded(id);
    std::string piece = tokens_.pieces()[static_cast<size_t>(id)];
    // What was found in normalised text stands for that text.
    if (added != nullptr && added->normalized) normalizer_.Apply(&piece, nullptr);
    decoder_.AddPiece(piece, added != nullptr, added != nullptr && added->special);
    spec_.is_control[static_cast<size_t>(id)] = added != nullptr && added->control;
  }
}

absl::Status TokenizerBuilder::ReadMerges() {
  const auto& vocabulary = tokens_.vocabulary();
  spec_.merges.reserve(document_.merges.size());
  spec_.merged.reserve(document_.merges.size());
  std::string whole;
  for (size_t i = 0; i < document_.merges.size(); ++i) {
    const auto& [left, right] = document_.merges[i];
    if (left.empty() || right.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("model.merges[", i, "]: a pair of pieces is expected"));
    }
    whole.assign(left).append(right);
    const auto left_id = vocabulary.find(left), right_id = vocabulary.find(right),
               id = vocabulary.find(whole);
    if (left_id == vocabulary.end() || right_id == vocabulary.end() || id == vocabulary.end()) {
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

void TokenizerBuilder::AddFinders(Tokenizer* tokenizer) const {
  for (const auto& [id, token] : tokens_.added()) {
    if (token.normalized) {
      std::string spelling = token.content;
      normalizer_.Apply(&spelling, nullptr);
      tokenizer->normalized_finder_.Add(spelling, token);
      tokenizer->has_normalized_control_ |= token.control;
    } else {
      tokenizer->raw_finder_.Add(token.content, token);
    }
    tokenizer->added_tokens_.push_back(token);
  }
}

Tokenizer::Role TokenizerBuilder::RoleOf(const char* role) const {
  const std::string& text = roles_.TextOf(role);
  return {text, text.empty() ? std::nullopt : tokens_.IdOf(text)};
}

void TokenizerBuilder::SetRoles(Tokenizer* tokenizer) const {
  tokenizer->bos_ = RoleOf("bos_token");
  tokenizer->eos_ = RoleOf("eos_token");
  tokenizer->pad_ = RoleOf("pad_token");
  // Without a config file the token that the post-processor puts first is the model's BOS.
  const std::vector<TokenId>& prefix = post_processor_.prefix;
  if (!tokenizer->bos_.id.has_value() && prefix.size() == 1) {
    tokenizer->bos_ = {tokens_.pieces()[static_cast<size_t>(prefix[0])], prefix[0]};
  }
  tokenizer->role_texts_ = roles_.roles();
  tokenizer->role_texts_["bos_token"] = tokenizer->bos_.text;
  tokenizer->role_texts_["eos_token"] = tokenizer->eos_.text;
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> TokenizerBuilder::Build(const TokenizerFiles& files) {
  auto document = ParseTokenizerDocument(files.tokenizer_json);
  if (!document.ok()) return document.status();
  document_ = *std::move(document);
  if (absl::Status status = ReadTokens(files); !status.ok()) return status;
  if (absl::Status status = ReadParts(); !status.ok()) return status;
  FillPieces();
  if (absl::Status status = ReadMerges(); !status.ok()) return status;
  auto bpe = Bpe::Create(std::move(spec_));
  if (!bpe.ok()) return bpe.status();
  std::unique_ptr<Tokenizer> tokenizer(
      new Tokenizer(normalizer_, std::move(pre_tokenizer_), *std::move(bpe), std::move(decoder_)));
  AddFinders(tokenizer.get());
  SetRoles(tokenizer.get());
  tokenizer->prefix_ = post_processor_.prefix;
  tokenizer->suffix_ = post_processor_.suffix;
  tokenizer->digest_ = DigestOf(files);
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

}  // namespace orrery
