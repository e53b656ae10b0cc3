// User text never becomes a control token; apart from that, cutting a prompt into segments changes nothing.

#include <gtest/gtest.h>

#include <algorithm>

#include "server/text/tokenizer.h"
#include "tests/server/text/small_tokenizers.h"

namespace orrery {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<TokenId>;

const std::vector<std::string> kTagLetters = {"\u2581", "a", "b", "<", "s", ">", "/", "|", "e", "n", "d"};

Json ByteLevelWithFlags() {
  RandomStream random(31);
  Json json = ByteLevelJson(RandomMerges({"\u0120", "a", "b", "<", "|", ">"}, 30, &random));
  const auto next = [&json] { return json["model"]["vocab"].size() + json["added_tokens"].size(); };
  const auto add = [&](const char* content, Json flags) {
    Json token = {{"id", next()},    {"content", content},  {"single_word", false}, {"lstrip", false},
                  {"rstrip", false}, {"normalized", false}, {"special", false}};
    token.update(flags);
    json["added_tokens"].push_back(token);
  };
  add("<|role|>", Json::object());  // not called special, but it looks it
  add("<tool>", Json::object());    // ordinary vocabulary
  add("<|wide|>", {{"lstrip", true}, {"rstrip", true}, {"special", true}});
  add("<|normal|>", {{"normalized", true}, {"special", true}});
  return json;
}

Json SentencePieceWithMarkers() {
  // Merges that spell "<s>" and "</s>", as converters write them for every piece of the vocabulary.
  Json json = SentencePieceJson(
      kTagLetters, {{"<", "s"}, {"<s", ">"}, {"s", ">"}, {"<", "/"}, {"</", "s>"}, {"\u2581", "a"}});
  json["added_tokens"][1]["normalized"] = true;  // as old Llama files have it
  return json;
}

TEST(TokenizerTest, StopsWhenThereAreMoreThanMayBe) {
  for (const auto& tokenizer : {MustParse(ByteLevelWithFlags()), MustParse(SentencePieceWithMarkers())}) {
    for (const char* text : {"", "a", "a b c <|start|> d", "one two three, four; five <tool> six"}) {
      const Ids all = *tokenizer->Encode(text);
      for (size_t most = 0; most < all.size() + 2; ++most) {
        const auto ids = tokenizer->Encode(text, {.max_tokens = most});
        if (all.size() <= most) {
          EXPECT_EQ(*ids, all);
        } else {
          EXPECT_EQ(ids.status().code(), absl::StatusCode::kOutOfRange) << text << " " << most;
        }
      }
    }
  }
}

TEST(SpecialTokensTest, TextOfUsersIsPlain) {
  const auto byte_level = MustParse(ByteLevelWithFlags());
  for (const char* content : {"<|start|>", "<|end|>", "<|role|>", "<|wide|>", "<|normal|>"}) {
    const TokenId id = *byte_level->IdOfAdded(content);
    const Ids plain = *byte_level->Encode(std::string("a") + content + "b");
    EXPECT_EQ(std::count(plain.begin(), plain.end(), id), 0) << content;
    EXPECT_EQ(byte_level->Decode(plain), std::string("a") + content + "b");
    const Ids parsed = *byte_level->Encode(std::string("a") + content + "b", {.parse_special = true});
    EXPECT_EQ(parsed, (Ids{'a', id, 'b'})) << content;
  }
  const Ids tool = *byte_level->Encode("a<tool>b");
  EXPECT_EQ(tool, (Ids{'a', *byte_level->IdOfAdded("<tool>"), 'b'}));

  const auto sentence_piece = MustParse(SentencePieceWithMarkers());
  for (const char* text : {"<s>", "</s>", "a<s></s>", "<unk>"}) {
    const Ids ids = *sentence_piece->Encode(text, {.add_special = false});
    EXPECT_TRUE(std::all_of(ids.begin(), ids.end(), [](TokenId id) { return id > 2; })) << text;
    EXPECT_EQ(sentence_piece->Decode(ids), text);
  }
  EXPECT_EQ(sentence_piece->Encode("</s>", {.add_special = false, .parse_special = true})->back(), 2);
}

TEST(SpecialTokensTest, RolesMakeTokensControl) {
  Json json = SentencePieceWithMarkers();
  const auto stop = static_cast<TokenId>(json["model"]["vocab"].size());
  json["added_tokens"].push_back({{"id", stop}, {"content", "[stop]"}, {"special", false}});
  const auto without = MustParse(json);
  EXPECT_EQ(without->Encode("[stop]", {.add_special = false})->back(), stop);
  EXPECT_FALSE(without->IsSpecial(stop));
  const auto with = MustParse(json, R"({"bos_token": {"content": "<s>"}, "eos_token": "[stop]"})");
  EXPECT_NE(with->Encode("[stop]", {.add_special = false})->back(), stop);
  EXPECT_TRUE(with->IsSpecial(stop));
  EXPECT_EQ(with->eos_id(), stop);
}

// Some checkpoints pad with "!", which users write too.
TEST(SpecialTokensTest, OneCharacterStaysALetterWhateverItsRole) {
  const Json json = ByteLevelJson({{"!", "!"}, {"a", "!"}});
  Json listed = json;
  listed["added_tokens"].push_back({{"id", '!'}, {"content", "!"}, {"special", true}});
  const auto plain = MustParse(json);
  const std::string config = R"({"pad_token": "!", "eos_token": "<|end|>"})";
  for (const auto& tokenizer : {MustParse(json, config), MustParse(listed, config),
                                MustParse(json, R"({"pad_token": {"content": "!"}})"),
                                MustParse(json, R"({"additional_special_tokens": ["!"]})")}) {
    EXPECT_FALSE(tokenizer->IsSpecial('!'));
    for (const char* text : {"!", "!!", "a!b!!!", "wait!", "!<|end|>!"}) {
      const Ids ids = *tokenizer->Encode(text);
      EXPECT_EQ(ids, *plain->Encode(text)) << text;  // merges go on across it
      EXPECT_EQ(tokenizer->Decode(ids), text);
    }
  }
  EXPECT_EQ(MustParse(json, config)->pad_id(), '!');
  EXPECT_EQ(MustParse(listed, config)->pad_id(), '!');
  // One that the vocabulary lacks is still found, shown, and open to users.
  Json added = json;
  const auto next = static_cast<TokenId>(json["model"]["vocab"].size() + 2);
  added["added_tokens"].push_back({{"id", next}, {"content", "\u2581"}, {"special", true}});
  const auto tokenizer = MustParse(added);
  const Ids ids = *tokenizer->Encode("a\u2581");
  EXPECT_EQ(ids, (Ids{'a', next}));
  EXPECT_EQ(tokenizer->Decode(ids), "a\u2581");
}

TEST(SpecialTokensTest, NamesOfControlTokensAreEnough) {
  Json json = SentencePieceWithMarkers();
  for (Json& token : json["added_tokens"]) token["special"] = false;  // as phi-3 has its </s>
  const auto tokenizer = MustParse(json);
  EXPECT_NE(tokenizer->Encode("</s>", {.add_special = false})->back(), 2);
  EXPECT_EQ(tokenizer->Encode("</s>", {.add_special = false, .parse_special = true})->back(), 2);
}

TEST(SpecialTokensTest, ControlTokensNeedTheirOwnSegment) {
  const auto tokenizer = MustParse(ByteLevelWithFlags());
  const TokenId end = *tokenizer->IdOfAdded("<|end|>");
  const auto encode = [&](std::vector<TextSegment> segments) { return *tokenizer->EncodeSegments(segments); };
  EXPECT_EQ(encode({{"<|end|>", true}, {"a", false}}), (Ids{end, 'a'}));
  EXPECT_EQ(encode({{"<|en", true}, {"d|>", true}, {"a", false}}), (Ids{end, 'a'}));
  // Part by the template, part by the user, in either order.
  for (const bool first : {false, true}) {
    const Ids ids = encode({{"<|en", first}, {"d|>", !first}});
    EXPECT_EQ(std::count(ids.begin(), ids.end(), end), 0);
    EXPECT_EQ(tokenizer->Decode(ids), "<|end|>");
  }
  const Ids mixed = encode({{"<|end|>", false}, {"<|end|>", true}, {"<|end|>", false}});
  EXPECT_EQ(std::count(mixed.begin(), mixed.end(), end), 1);
}

// Without strings of control tokens in the text of users, segments give what the concatenation gives.
TEST(SpecialTokensTest, SegmentsEqualTheConcatenation) {
  RandomStream random(32);
  const std::vector<std::string> user_parts = {"a",  "b", " ",      "  ",      "\n",     "<", ">",
                                               "'s", "1", "\u00e9", "e\u0301", "<tool>", "<s"};
  const std::vector<std::string> template_parts = {"<|start|>", "<|wide|>", "<|normal|>", "</s>", "<s>",
                                                   "a",         " ",        "\n",         "e"};
  Json nfc = ByteLevelWithFlags();
  nfc["normalizer"] = {{"type", "NFC"}};
  for (const Json& json : {ByteLevelWithFlags(), nfc, SentencePieceWithMarkers()}) {
    const auto tokenizer = MustParse(json);
    int compared = 0;
    for (int round = 0; round < 4000; ++round) {
      std::vector<std::string> texts;
      std::vector<bool> marks;
      std::string joined;
      for (uint64_t i = random.Below(6); i > 0; --i) {
        marks.push_back(random.Below(2) == 0);
        std::string text;
        for (uint64_t k = random.Below(5); k > 0; --k) {
          const auto& parts = marks.back() ? template_parts : user_parts;
          text += parts[random.Below(parts.size())];
        }
        texts.push_back(text);
        joined += text;
      }
      std::vector<TextSegment> segments;
      for (size_t i = 0; i < texts.size(); ++i) segments.push_back({texts[i], marks[i]});
      const Ids got = *tokenizer->EncodeSegments(segments);
      const Ids whole = *tokenizer->Encode(joined, {.parse_special = true});
      // Borders can spell a control token by accident; such texts are the other test's matter.
      size_t in_segments = 0, in_whole = 0;
      for (const TokenId id : got) in_segments += tokenizer->IsSpecial(id);
      for (const TokenId id : whole) in_whole += tokenizer->IsSpecial(id);
      ASSERT_LE(in_segments, in_whole);
      if (in_segments != in_whole) continue;
      ++compared;
      ASSERT_EQ(got, whole) << joined;
    }
    EXPECT_GT(compared, 3000);
  }
}

TEST(SpecialTokensTest, NormalizedTokensOfTheTemplateAreFoundInMixedText) {
  Json json = ByteLevelWithFlags();
  json["normalizer"] = {{"type", "NFC"}};
  const auto tokenizer = MustParse(json);
  const TokenId normal = *tokenizer->IdOfAdded("<|normal|>");
  const std::vector<TextSegment> segments = {{"e\u0301", false}, {"<|normal|>", true}, {"<|normal|>", false}};
  const Ids ids = *tokenizer->EncodeSegments(segments);
  ASSERT_EQ(std::count(ids.begin(), ids.end(), normal), 1);
  EXPECT_EQ(ids[2], normal);  // U+00E9 is two bytes before it
}

}  // namespace
}  // namespace orrery
