// Streams of ids: deltas are whole characters and add up to the text of all ids at once.

#include "server/text/detokenizer.h"

#include <gtest/gtest.h>

#include "server/text/utf8.h"
#include "tests/server/text/small_tokenizers.h"

namespace orrery {
namespace {

const std::vector<std::string> kPieceLetters = {"\u2581", "a", "b", "c", "\u00e9", "\u4e2d"};

std::unique_ptr<const Tokenizer> SentencePiece() {
  RandomStream random(21);
  return MustParse(SentencePieceJson(kPieceLetters, RandomMerges(kPieceLetters, 30, &random)));
}

std::unique_ptr<const Tokenizer> ByteLevel() {
  RandomStream random(22);
  // "Ã" and "©" spell U+00E9; "ä", "¸", "Ń" spell U+4E2D: merges that cut characters are part of the game.
  return MustParse(ByteLevelJson(
      RandomMerges({"\u0120", "a", "b", "\u00c3", "\u00a9", "\u00e4", "\u00b8", "\u0143"}, 40, &random)));
}

std::string Stream(const Tokenizer& tokenizer, const std::vector<TokenId>& ids, bool skip_special) {
  Detokenizer detokenizer(&tokenizer, skip_special);
  std::string all;
  for (const TokenId id : ids) {
    std::string delta;
    detokenizer.Append(id, &delta);
    EXPECT_EQ(FindInvalidUtf8(delta), std::string_view::npos);
    all += delta;
  }
  std::string delta;
  detokenizer.Finish(&delta);
  EXPECT_FALSE(detokenizer.holds_bytes());
  return all + delta;
}

TEST(DetokenizerTest, DeltasAddUpOnRandomIds) {
  RandomStream random(23);
  for (const auto& tokenizer : {SentencePiece(), ByteLevel()}) {
    for (int round = 0; round < 5000; ++round) {
      std::vector<TokenId> ids;
      const auto range = static_cast<uint64_t>(tokenizer->vocab_size()) + 4;
      for (uint64_t i = random.Below(12); i > 0; --i)
        ids.push_back(static_cast<TokenId>(random.Below(range)) - 2);
      for (const bool skip : {false, true}) {
        const std::string text = Stream(*tokenizer, ids, skip);
        ASSERT_EQ(text, tokenizer->Decode(ids, skip));
        ASSERT_EQ(FindInvalidUtf8(text), std::string_view::npos);
      }
    }
  }
}

TEST(DetokenizerTest, EncodeThenDecodeGivesTheText) {
  RandomStream random(24);
  const std::vector<std::string> favoured = {"a",          "b",   "c",       " ", "\u00e9", "\u4e2d",
                                             "\U0001F600", "<s>", "<|end|>", "x", "\n"};
  for (const auto& tokenizer : {SentencePiece(), ByteLevel()}) {
    for (int round = 0; round < 5000; ++round) {
      const std::string text = RandomText(favoured, 40, &random);
      const auto ids = tokenizer->Encode(text);
      ASSERT_TRUE(ids.ok());
      ASSERT_EQ(tokenizer->Decode(*ids), text);
      ASSERT_EQ(Stream(*tokenizer, *ids, true), text);
    }
  }
}

TEST(DetokenizerTest, HoldsBytesOfACharacter) {
  const auto tokenizer = SentencePiece();
  const auto byte = [](int value) { return value + 3; };
  Detokenizer detokenizer(tokenizer.get());
  std::string delta;
  for (const int value : {0xF0, 0x9F, 0x98}) {
    detokenizer.Append(byte(value), &delta);
    EXPECT_EQ(delta, "");
    EXPECT_TRUE(detokenizer.holds_bytes());
  }
  detokenizer.Append(byte(0x80), &delta);
  EXPECT_EQ(delta, "\U0001F600");
  detokenizer.Append(byte(0xE2), &delta);
  detokenizer.Finish(&delta);
  EXPECT_EQ(delta, "\U0001F600\uFFFD");
}

TEST(DetokenizerTest, FirstPieceAndPrompt) {
  const auto tokenizer = SentencePiece();
  const auto first_delta = [&](const std::vector<TokenId>& prompt) {
    Detokenizer detokenizer(tokenizer.get(), true, prompt);
    std::string delta;
    const std::vector<TokenId> ids = *tokenizer->Encode("a", {.add_special = false});
    for (const TokenId id : ids) detokenizer.Append(id, &delta);
    return delta;
  };
  EXPECT_EQ(first_delta({}), "a");
  EXPECT_EQ(first_delta({1}), "a");                       // the piece after BOS loses one space
  EXPECT_EQ(first_delta(*tokenizer->Encode("b")), " a");  // inside a text it does not
}

TEST(DetokenizerTest, CompletesACharacterOfThePrompt) {
  const auto tokenizer = SentencePiece();
  const std::vector<TokenId> prompt = {1, 0xE4 + 3, 0xB8 + 3};
  Detokenizer detokenizer(tokenizer.get(), true, prompt);
  std::string delta;
  detokenizer.Append(0xAD + 3, &delta);
  EXPECT_EQ(delta, "\u4e2d");
}

TEST(DetokenizerTest, SpecialTokensShownOrSkipped) {
  const auto tokenizer = ByteLevel();
  const TokenId end = *tokenizer->IdOfAdded("<|end|>");
  EXPECT_EQ(tokenizer->Decode({'a', end, 'b'}, true), "ab");
  EXPECT_EQ(tokenizer->Decode({'a', end, 'b'}, false), "a<|end|>b");
}

TEST(DetokenizerTest, MetaspaceDropsTheFirstSpace) {
  RandomStream random(25);
  nlohmann::json json = SentencePieceJson(kPieceLetters, {{"\u2581", "a"}});
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "always"}};
  json["decoder"] = json["pre_tokenizer"];
  const auto tokenizer = MustParse(json);
  EXPECT_EQ(tokenizer->Decode(*tokenizer->Encode("a a")), "a a");
  EXPECT_EQ(tokenizer->Decode(*tokenizer->Encode("a  a ")), "a  a ");
}

}  // namespace
}  // namespace orrery
