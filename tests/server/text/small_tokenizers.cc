#include "tests/server/text/small_tokenizers.h"

#include <gtest/gtest.h>

#include "absl/strings/str_format.h"
#include "server/text/byte_alphabet.h"
#include "server/text/utf8.h"

namespace orrery {
namespace {

using Json = nlohmann::json;

Json AddedTokenJson(int id, const std::string& content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

void AddMerges(const Merges& merges, Json* model) {
  Json list = Json::array();
  Json& vocab = (*model)["vocab"];
  for (const auto& [left, right] : merges) {
    list.push_back(left + " " + right);
    if (!vocab.contains(left + right)) vocab[left + right] = vocab.size();
  }
  (*model)["merges"] = list;
}

}  // namespace

Json ByteLevelJson(const Merges& merges) {
  Json model = {{"type", "BPE"}, {"vocab", Json::object()}};
  for (int byte = 0; byte < 256; ++byte) model["vocab"][AlphabetOfByte(static_cast<uint8_t>(byte))] = byte;
  AddMerges(merges, &model);
  const int next = static_cast<int>(model["vocab"].size());
  const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  return {{"added_tokens", {AddedTokenJson(next, "<|start|>"), AddedTokenJson(next + 1, "<|end|>")}},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model", model}};
}

Json SentencePieceJson(const std::vector<std::string>& letters, const Merges& merges) {
  Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; byte < 256; ++byte) vocab[absl::StrFormat("<0x%02X>", byte)] = byte + 3;
  for (const std::string& letter : letters) {
    if (!vocab.contains(letter)) vocab[letter] = vocab.size();
  }
  Json model = {
      {"type", "BPE"}, {"unk_token", "<unk>"}, {"fuse_unk", true}, {"byte_fallback", true}, {"vocab", vocab}};
  AddMerges(merges, &model);
  const Json space = {{"String", " "}}, bar = {{"String", "\u2581"}};
  return {{"added_tokens", {AddedTokenJson(0, "<unk>"), AddedTokenJson(1, "<s>"), AddedTokenJson(2, "</s>")}},
          {"normalizer",
           {{"type", "Sequence"},
            {"normalizers",
             {{{"type", "Prepend"}, {"prepend", "\u2581"}},
              {{"type", "Replace"}, {"pattern", space}, {"content", "\u2581"}}}}}},
          {"pre_tokenizer", nullptr},
          {"post_processor",
           {{"type", "TemplateProcessing"},
            {"single",
             {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
              {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
            {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}}}}}},
          {"decoder",
           {{"type", "Sequence"},
            {"decoders",
             {{{"type", "Replace"}, {"pattern", bar}, {"content", " "}},
              {{"type", "ByteFallback"}},
              {{"type", "Fuse"}},
              {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
          {"model", model}};
}

Merges RandomMerges(const std::vector<std::string>& letters, int count, RandomStream* random) {
  std::vector<std::string> pieces = letters;
  Merges merges;
  for (int i = 0; i < count; ++i) {
    const std::string left = pieces[random->Below(pieces.size())];
    const std::string right = pieces[random->Below(pieces.size())];
    merges.emplace_back(left, right);
    pieces.push_back(left + right);
  }
  return merges;
}

std::string RandomText(const std::vector<std::string>& favoured, int max_chars, RandomStream* random) {
  std::string text;
  const auto count = random->Below(static_cast<uint64_t>(max_chars) + 1);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t kind = random->Below(20);
    if (kind < 16) {
      text += favoured[random->Below(favoured.size())];
    } else if (kind < 18) {
      text += " \n\t "[random->Below(4)];
    } else {
      uint32_t c = static_cast<uint32_t>(random->Below(kind == 18 ? 0x3000 : 0x110000));
      if (c >= 0xD800 && c < 0xE000) c = 0xFFFD;
      AppendUtf8(c, &text);
    }
  }
  return text;
}

std::unique_ptr<const Tokenizer> MustParse(const Json& json, const std::string& config) {
  auto tokenizer = Tokenizer::Parse({json.dump(), config, ""});
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

}  // namespace orrery
