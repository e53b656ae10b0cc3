// Files that are wrong, unsupported or large, limits on input, and the facts that the files state.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "server/text/tokenizer.h"
#include "tests/server/text/small_tokenizers.h"

namespace orrery {
namespace {

using Json = nlohmann::json;

Json Small() { return SentencePieceJson({"\u2581", "a", "b"}, {{"a", "b"}, {"\u2581", "ab"}}); }

absl::Status StatusOf(const std::string& text, const std::string& config = "") {
  return Tokenizer::Parse({text, config, ""}).status();
}

TEST(TokenizerFilesTest, UnsupportedPartsAreNamed) {
  const auto refusal = [](const char* pointer, const Json& value) {
    Json json = Small();
    json[Json::json_pointer(pointer)] = value;
    const absl::Status status = StatusOf(json.dump());
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << pointer << " " << value;
    return std::string(status.message());
  };
  EXPECT_EQ(refusal("/model/type", "Unigram"), "model type 'Unigram' is not supported");
  EXPECT_EQ(refusal("/model/dropout", 0.1), "model.dropout is not supported");
  EXPECT_EQ(refusal("/model/continuing_subword_prefix", "##"),
            "model.continuing_subword_prefix is not supported");
  EXPECT_EQ(refusal("/model/end_of_word_suffix", "</w>"), "model.end_of_word_suffix is not supported");
  EXPECT_EQ(refusal("/normalizer", {{"type", "BertNormalizer"}}),
            "normalizer type 'BertNormalizer' is not supported");
  EXPECT_EQ(refusal("/pre_tokenizer", {{"type", "BertPreTokenizer"}}),
            "pre_tokenizer type 'BertPreTokenizer' is not supported");
  EXPECT_EQ(refusal("/post_processor", {{"type", "BertProcessing"}}),
            "post_processor type 'BertProcessing' is not supported");
  EXPECT_EQ(refusal("/decoder", {{"type", "WordPiece"}}), "decoder type 'WordPiece' is not supported");
  EXPECT_EQ(refusal("/pre_tokenizer",
                    {{"type", "Split"}, {"pattern", {{"Regex", "(a|b)*"}}}, {"behavior", "Isolated"}}),
            "pre_tokenizer Split: the pattern (a|b)* is not supported");
}

TEST(TokenizerFilesTest, WrongFilesAreRefused) {
  const auto is_refused = [](const char* pointer, const Json& value) {
    Json json = Small();
    json[Json::json_pointer(pointer)] = value;
    const absl::Status status = StatusOf(json.dump());
    EXPECT_FALSE(status.ok()) << pointer << " " << value;
    EXPECT_FALSE(status.message().empty());
  };
  is_refused("/model", nullptr);
  is_refused("/model/vocab", nullptr);
  is_refused("/model/vocab", {{"a", -1}});
  is_refused("/model/vocab", {{"a", 1.5}});
  is_refused("/model/vocab", {{"a", 4000000000000}});
  is_refused("/model/vocab", {{"a", 0}, {"b", 0}});
  is_refused("/model/vocab", Json::object());
  is_refused("/model/merges", "a b");
  is_refused("/model/merges/0", "ab");
  is_refused("/model/merges/0", "a b c");
  is_refused("/model/merges/0", {"a"});
  is_refused("/model/merges/0", {"a", "zz"});
  is_refused("/model/merges/0", {"b", "a"});  // "ba" is not in the vocabulary
  is_refused("/model/unk_token", "nowhere");
  is_refused("/model/fuse_unk", "yes");
  is_refused("/added_tokens", 5);
  is_refused("/added_tokens/0/id", 9);  // the vocabulary says 0
  is_refused("/added_tokens/0/id", 5000000);
  is_refused("/added_tokens/0/content", "");
  is_refused("/added_tokens/0/content", std::string(kMaxAddedTokenBytes + 1, 'x'));
  is_refused("/added_tokens/1/content", "<unk>");
  is_refused("/post_processor/single", Json::array());
  is_refused("/post_processor/special_tokens", Json::object());
  is_refused("/post_processor/special_tokens/<s>/ids/0", 99999);
  is_refused("/decoder", nullptr);
  is_refused("/decoder", "ByteLevel");
  EXPECT_FALSE(StatusOf("").ok());
  EXPECT_FALSE(StatusOf("[]").ok());
  EXPECT_FALSE(StatusOf(Small().dump(), "not json").ok());
  EXPECT_FALSE(StatusOf(Small().dump(), R"({"add_bos_token": "yes"})").ok());
}

TEST(TokenizerFilesTest, EveryTruncationIsRefused) {
  const std::string text = Small().dump();
  for (size_t size = 0; size < text.size(); size += 29)
    EXPECT_FALSE(StatusOf(text.substr(0, size)).ok()) << size;
  EXPECT_FALSE(StatusOf(std::string(1000000, '[')).ok());
}

TEST(TokenizerFilesTest, ManyAddedTokens) {
  Json json = Small();
  const int first = static_cast<int>(json["model"]["vocab"].size());
  for (int i = 0; i < 50000; ++i) {
    json["added_tokens"].push_back(
        {{"id", first + i}, {"content", "<|t" + std::to_string(i) + "|>"}, {"special", true}});
  }
  const auto tokenizer = MustParse(json);
  EXPECT_EQ(tokenizer->vocab_size(), first + 50000);
  const auto ids = tokenizer->Encode("<|t49999|>", {.add_special = false, .parse_special = true});
  EXPECT_EQ(*ids, std::vector<TokenId>{first + 49999});
}

// Time that is quadratic in the length of a list, also of one that nobody asked for, does not end on this.
TEST(TokenizerFilesTest, LongListsAreReadInLinearTime) {
  std::string list = "{}";
  for (int i = 0; i < 300000; ++i) list += ",{}";
  std::string text = Small().dump();
  text.insert(1, "\"unknown\":[" + list + "],");
  EXPECT_TRUE(StatusOf(text).ok());
  text = Small().dump();
  text.insert(text.find("\"merges\":[") + 10, list + ",");
  EXPECT_EQ(StatusOf(text).message(), "model.merges[0]: a pair of pieces is expected");
}

// The trie of added tokens grows with their bytes, so the bytes of all files together are bounded.
TEST(TokenizerFilesTest, BytesOfAddedTokensAreBounded) {
  const size_t count = kMaxAddedTokensTotalBytes / kMaxAddedTokenBytes;
  Json json = Small();
  const size_t first = json["model"]["vocab"].size();
  const auto token = [&](size_t i) {
    std::string content = absl::StrCat("<", i, ">");
    content.resize(kMaxAddedTokenBytes, 'x');
    return Json{{"id", first + i}, {"content", content}};
  };
  for (size_t i = 0; i < count - 1; ++i) json["added_tokens"].push_back(token(i));
  const std::string fits = json.dump();
  EXPECT_TRUE(StatusOf(fits).ok());
  const Json decoder = {{std::to_string(first + count - 1), token(count - 1)}};
  json["added_tokens"].push_back(token(count - 1));
  const std::string limit = absl::StrCat(": more than ", kMaxAddedTokensTotalBytes, " bytes of added tokens");
  const absl::Status in_list = StatusOf(json.dump());
  EXPECT_EQ(in_list.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(in_list.message(), "added_tokens" + limit);
  const absl::Status in_config = StatusOf(fits, Json{{"added_tokens_decoder", decoder}}.dump());
  EXPECT_EQ(in_config.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(in_config.message(), "added_tokens_decoder" + limit);
}

TEST(TokenizerFilesTest, RolesOfLongPiecesAreRefused) {
  Json json = Small();
  const std::string piece(kMaxAddedTokenBytes + 1, 'b');
  json["model"]["vocab"][piece] = json["model"]["vocab"].size();
  EXPECT_TRUE(StatusOf(json.dump()).ok());
  EXPECT_EQ(StatusOf(json.dump(), Json{{"pad_token", piece}}.dump()).code(),
            absl::StatusCode::kInvalidArgument);
}

// Each Replace may find what the one before it wrote.
TEST(TokenizerFilesTest, GrowthOfTextsIsBounded) {
  const auto replace = [](size_t copies) {
    return Json{{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(copies, 'a')}};
  };
  for (const char* part : {"normalizer", "decoder"}) {
    const bool normalizer = std::string(part) == "normalizer";
    Json json = Small();
    json[part] = {{"type", "Sequence"}, {normalizer ? "normalizers" : "decoders", {replace(8), replace(8)}}};
    const auto tokenizer = MustParse(json);
    const std::string text = tokenizer->Decode(*tokenizer->Encode("a", {.add_special = false}));
    EXPECT_EQ(std::count(text.begin(), text.end(), 'a'), 64) << part;
    json[part][normalizer ? "normalizers" : "decoders"].push_back(replace(2));
    EXPECT_EQ(StatusOf(json.dump()).code(), absl::StatusCode::kInvalidArgument) << part;
  }
}

TEST(TokenizerFilesTest, BosComesFromThePostProcessorOrTheConfig) {
  const std::string config =
      R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true, "add_eos_token": true})";
  const auto with_template = MustParse(Small(), config);
  EXPECT_EQ(with_template->Encode("")->size(), 1u);  // the template adds BOS once and no EOS
  Json json = Small();
  json["post_processor"] = nullptr;
  EXPECT_TRUE(MustParse(json)->Encode("")->empty());
  EXPECT_EQ(*MustParse(json, config)->Encode(""), (std::vector<TokenId>{1, 2}));
  json["post_processor"] = {{"type", "ByteLevel"}};
  EXPECT_EQ(*MustParse(json, config)->Encode(""), (std::vector<TokenId>{1, 2}));
  // A chat prompt is encoded without additions.
  const TextSegment segment{"<s>", true};
  EXPECT_EQ(*with_template->EncodeSegments({&segment, 1}, {.add_special = false}), std::vector<TokenId>{1});
}

// As Hugging Face's LlamaTokenizerFast does, which has its own post-processor.
TEST(TokenizerFilesTest, TheConfigOfALlamaTokenizerDecidesOnBos) {
  const auto ids = [](const char* tokenizer_class, const Json& post_processor, Json config) {
    config.update({{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"tokenizer_class", tokenizer_class}});
    Json json = Small();
    if (!post_processor.is_null()) json["post_processor"] = post_processor;
    return *MustParse(json, config.dump())->Encode("");
  };
  using Ids = std::vector<TokenId>;
  const Json byte_level = {{"type", "ByteLevel"}};
  for (const char* name : {"LlamaTokenizer", "LlamaTokenizerFast"}) {
    for (const Json& post_processor :
         {Json(), byte_level}) {  // the first: tokenizer.json's template with BOS
      EXPECT_EQ(ids(name, post_processor, Json::object()), Ids{1});
      EXPECT_EQ(ids(name, post_processor, {{"add_bos_token", true}, {"add_eos_token", true}}), (Ids{1, 2}));
      EXPECT_EQ(ids(name, post_processor, {{"add_bos_token", false}}), Ids());
    }
  }
  EXPECT_EQ(ids("PreTrainedTokenizerFast", Json(), {{"add_bos_token", false}}), Ids{1});
  EXPECT_EQ(ids("PreTrainedTokenizerFast", byte_level, Json::object()), Ids());
}

TEST(TokenizerFilesTest, RolesHaveTheirTexts) {
  const auto tokenizer = MustParse(Small(), R"({"eos_token": "</s>", "pad_token": {"content": "<unk>"}})");
  const std::map<std::string, std::string> expected = {
      {"bos_token", "<s>"}, {"eos_token", "</s>"}, {"pad_token", "<unk>"}};  // BOS is the template's
  EXPECT_EQ(tokenizer->role_texts(), expected);
}

TEST(TokenizerFilesTest, ConfigAddsTokensThatTokenizerJsonLacks) {
  Json json = Small();
  const auto next = json["model"]["vocab"].size();
  const Json config = {{"added_tokens_decoder",
                        {{std::to_string(next), {{"content", "<extra>"}, {"special", true}}},
                         {"1", {{"content", "<s>"}, {"special", false}}}}}};
  const auto tokenizer = MustParse(json, config.dump());
  EXPECT_EQ(tokenizer->IdOfAdded("<extra>"), static_cast<TokenId>(next));
  EXPECT_TRUE(tokenizer->IsSpecial(static_cast<TokenId>(next)));
  EXPECT_TRUE(tokenizer->IsSpecial(1));  // tokenizer.json wins
}

TEST(TokenizerFilesTest, LimitsOnText) {
  const auto tokenizer = MustParse(Small());
  const auto message = [&](std::string_view text, EncodeOptions options) {
    const auto ids = tokenizer->Encode(text, options);
    EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(ids.status().message());
  };
  EXPECT_EQ(message("aaaaa", {.max_bytes = 4}), "text: longer than the limit of 4 bytes");
  EXPECT_EQ(message("ab\xFF", {}), "text: not valid UTF-8 at byte 2");
  EXPECT_EQ(message("\xED\xA0\x80", {}), "text: not valid UTF-8 at byte 0");
  // No character may be made of bytes of two segments.
  const TextSegment halves[] = {{"\xC3", true}, {"\xA9", false}};
  EXPECT_FALSE(tokenizer->EncodeSegments(halves).ok());
  EXPECT_TRUE(tokenizer->Encode(std::string_view("a\0b", 3)).ok());
}

TEST(TokenizerFilesTest, DigestTellsFilesApart) {
  const std::string text = Small().dump();
  const auto digest = [&](const std::string& json, const std::string& config, const std::string& map) {
    return (*Tokenizer::Parse({json, config, map}))->digest();
  };
  EXPECT_EQ(digest(text, "", "").size(), 32u);
  EXPECT_EQ(digest(text, "", ""), digest(text, "", ""));
  EXPECT_NE(digest(text, "", ""), digest(text + " ", "", ""));
  EXPECT_NE(digest(text, "{}", ""), digest(text, "", "{}"));
}

TEST(TokenizerFilesTest, LoadReadsAFolder) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "tokenizer_files_test";
  std::filesystem::create_directories(folder);
  EXPECT_EQ(Tokenizer::Load(folder / "missing").status().code(), absl::StatusCode::kNotFound);
  std::ofstream(folder / "tokenizer.json") << Small().dump();
  std::ofstream(folder / "special_tokens_map.json") << R"({"eos_token": "</s>"})";
  const auto tokenizer = Tokenizer::Load(folder);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->eos_id(), 2);
  EXPECT_EQ((*tokenizer)->bos_id(), 1);  // known from the post-processor
  std::filesystem::remove_all(folder);
}

// Anything but linear time (n log n inside one word) does not end on these.
TEST(TokenizerFilesTest, HostileTexts) {
  RandomStream random(41);
  const std::vector<std::string> letters = {"\u2581", "a", "b"};
  const auto sentence_piece = MustParse(SentencePieceJson(letters, RandomMerges(letters, 60, &random)));
  const auto byte_level = MustParse(ByteLevelJson(RandomMerges({"\u0120", "a", "b"}, 60, &random)));
  const size_t size = 1 << 18;
  std::string noise;
  while (noise.size() < size) noise += "ab"[random.Below(2)];
  std::string marks = "a";
  while (marks.size() < size) marks += "\u0301\u0323";
  std::string words, digits;
  while (words.size() < size) words += "a ", digits += "1 ";
  for (const auto& tokenizer : {sentence_piece.get(), byte_level.get()}) {
    for (const std::string& text : {std::string(size, 'a'), std::string(size, ' '), std::string(size, '\n'),
                                    noise, marks, words, digits}) {
      const auto ids = tokenizer->Encode(text);
      ASSERT_TRUE(ids.ok());
      EXPECT_EQ(tokenizer->Decode(*ids), text);
    }
  }
}

}  // namespace
}  // namespace orrery
