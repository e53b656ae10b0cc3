// Normal forms against utf8proc's own whole-text functions, marks of bytes, and long chains of combining
// marks.

#include "server/text/normalizer.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <cstdlib>

#include "nlohmann/json.hpp"
#include "server/text/utf8.h"
#include "tests/server/text/small_tokenizers.h"

namespace orrery {
namespace {

Normalizer Make(const nlohmann::json& json) {
  auto normalizer = Normalizer::FromJson(json);
  EXPECT_TRUE(normalizer.ok()) << normalizer.status();
  return *std::move(normalizer);
}

std::string Whole(const std::string& type, const std::string& text) {
  int options = UTF8PROC_STABLE | (type.back() == 'C' ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
  if (type.size() == 4) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* out = nullptr;
  const auto size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &out, static_cast<utf8proc_option_t>(options));
  EXPECT_GE(size, 0);
  const std::string result(reinterpret_cast<char*>(out), static_cast<size_t>(size));
  std::free(out);
  return result;
}

class NormalForms : public testing::TestWithParam<const char*> {};

TEST_P(NormalForms, EveryCodePointAloneAndAfterALetter) {
  const Normalizer normalizer = Make({{"type", GetParam()}});
  for (uint32_t c = 1; c < 0x30000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    if (c == 0x11A7) continue;  // utf8proc 2.8 swallows it after a syllable, which is wrong; ours does not
    for (const uint32_t before : {0u, uint32_t{'e'}, 0x1100u, 0xAC00u, 0x9C7u}) {
      std::string text;
      if (before != 0) AppendUtf8(before, &text);
      AppendUtf8(c, &text);
      const std::string expected = Whole(GetParam(), text);
      normalizer.Apply(&text, nullptr);
      ASSERT_EQ(text, expected) << std::hex << before << " " << c;
    }
  }
}

TEST_P(NormalForms, RandomTexts) {
  const Normalizer normalizer = Make({{"type", GetParam()}});
  RandomStream random(11);
  const std::vector<std::string> favoured = {"a",      "e\u0301", "\u0323", "\u0301", "\u1100",
                                             "\u1161", "\u11a8",  "\uac00", "\u09c7", "\u09be",
                                             "\ufb01", "\u1e69",  "\u212b", "\u0344", "\u2126"};
  for (int round = 0; round < 4000; ++round) {
    std::string text = RandomText(favoured, 20, &random);
    const std::string expected = Whole(GetParam(), text);
    normalizer.Apply(&text, nullptr);
    ASSERT_EQ(text, expected);
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, NormalForms, testing::Values("NFC", "NFD", "NFKC", "NFKD"),
                         [](const auto& info) { return std::string(info.param); });

TEST(NormalizerTest, LongChainOfMarksInBothOrders) {
  // An ordering that moves marks one place at a time would need 10^11 steps here.
  const Normalizer normalizer = Make({{"type", "NFC"}});
  const int count = 300000;
  std::string text = "x", expected = "x";
  for (int i = 0; i < count; ++i) text += "\u0311";  // above, class 230
  for (int i = 0; i < count; ++i)
    text += "\u0316", expected += "\u0316";  // below, class 220: moves to the front
  for (int i = 0; i < count; ++i) expected += "\u0311";
  normalizer.Apply(&text, nullptr);
  EXPECT_EQ(text, expected);
}

TEST(NormalizerTest, MarksFollowBytes) {
  const auto apply = [](const nlohmann::json& json, std::string text, std::vector<uint8_t> marks) {
    Make(json).Apply(&text, &marks);
    EXPECT_EQ(text.size(), marks.size());
    return marks;
  };
  using Marks = std::vector<uint8_t>;
  EXPECT_EQ(apply({{"type", "Prepend"}, {"prepend", "__"}}, "ab", {1, 0}), (Marks{1, 1, 1, 0}));
  EXPECT_EQ(
      apply({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "__"}}, "a b ", {0, 1, 0, 0}),
      (Marks{0, 1, 1, 0, 0, 0}));
  // A character made of marked and unmarked bytes is unmarked.
  EXPECT_EQ(apply({{"type", "NFC"}}, "ae\u0301b", {1, 1, 0, 0, 1}), (Marks{1, 0, 0, 1}));
  EXPECT_EQ(apply({{"type", "Strip"}}, " a  ", {0, 1, 0, 0}), (Marks{1}));
}

TEST(NormalizerTest, RefusesByName) {
  const auto message = [](const nlohmann::json& json) {
    return std::string(Normalizer::FromJson(json).status().message());
  };
  EXPECT_EQ(message({{"type", "Precompiled"}}), "normalizer type 'Precompiled' is not supported");
  EXPECT_NE(message({{"type", "Replace"}, {"pattern", {{"Regex", "x+"}}}, {"content", ""}}), "");
  EXPECT_NE(message({{"type", "Prepend"}, {"prepend", std::string(1000, 'x')}}), "");
  EXPECT_NE(message(7), "");
  nlohmann::json nested = {{"type", "NFC"}};
  for (int i = 0; i < 100; ++i) nested = {{"type", "Sequence"}, {"normalizers", {nested}}};
  EXPECT_NE(message(nested), "");
}

}  // namespace
}  // namespace orrery
