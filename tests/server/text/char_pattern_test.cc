// Reading of short patterns, refusals, and matches of hostile texts (answers of another program:
// hf_cases_test).

#include "server/text/char_pattern.h"

#include <gtest/gtest.h>

#include "scheduler/base/random.h"
#include "tests/server/text/small_tokenizers.h"

namespace orrery {
namespace {

std::vector<std::string> Matches(const CharPattern& pattern, std::string_view text) {
  std::vector<std::string> found;
  size_t pos = 0, begin = 0, end = 0;
  while (pattern.Find(text, pos, &begin, &end)) {
    EXPECT_GE(begin, pos);
    EXPECT_GT(end, begin);
    found.emplace_back(text.substr(begin, end - begin));
    pos = end;
  }
  return found;
}

CharPattern Read(std::string_view regex) {
  auto pattern = CharPattern::FromRegex(regex);
  EXPECT_TRUE(pattern.ok()) << pattern.status();
  return *std::move(pattern);
}

using Strings = std::vector<std::string>;

TEST(CharPatternTest, ShortPatterns) {
  EXPECT_EQ(Matches(Read(R"([\r\n])"), "a\r\nb"), (Strings{"\r", "\n"}));
  EXPECT_EQ(Matches(Read(R"(\s?\p{L}+)"), "  ab 1c"), (Strings{" ab", "c"}));
  EXPECT_EQ(Matches(Read(R"(\p{N}{1,3})"), "12345a6"), (Strings{"123", "45", "6"}));
  EXPECT_EQ(Matches(Read(R"([^\s\p{L}]+)"), "ab!? c1"), (Strings{"!?", "1"}));
  EXPECT_EQ(Matches(Read(R"([a-cx\-\]])"), "abcd-]x"), (Strings{"a", "b", "c", "-", "]", "x"}));
  EXPECT_EQ(Matches(Read("[\u4e00-\u9fa5]+"), "a\u4e2d\u6587b"), (Strings{"\u4e2d\u6587"}));
  EXPECT_EQ(Matches(Read(R"(\s+$)"), " a \n b  "), (Strings{" ", "  "}));
}

TEST(CharPatternTest, RefusesWhatItCannotRead) {
  for (const char* regex : {"",      "a|b",     "(a)",         "a*",     "a+b+",   "[a",     "[]",     "[^]",
                            "[b-a]", "\\p{Lu}", "\\d",         "\\",     "a{2,3}", "a{1,0}", "a{1,x}", ".",
                            "^a",    "(?i:x)",  "[[:alpha:]]", "[a&&b]", "a??",    "\xFF"}) {
    EXPECT_EQ(CharPattern::FromRegex(regex).status().code(), absl::StatusCode::kUnimplemented) << regex;
  }
}

TEST(CharPatternTest, CoveringPatternsLeaveNothingOut) {
  RandomStream random(5);
  const Strings favoured = {"a",   "Z", "\u00e9", "\u4e2d", "1",  "\u0663", "'",      "'s",
                            "'LL", "!", "_",      "\r",     "\n", " ",      "\u3000", "\u0301"};
  for (
      const std::string_view regex :
      {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}) {
    const CharPattern pattern = Read(regex);
    for (int round = 0; round < 2000; ++round) {
      const std::string text = RandomText(favoured, 30, &random);
      std::string joined;
      for (const std::string& piece : Matches(pattern, text)) joined += piece;
      ASSERT_EQ(joined, text);
    }
  }
}

// Anything but linear time does not end on these.
TEST(CharPatternTest, HostileTexts) {
  const size_t size = 1 << 18;
  std::string marks = "a";
  while (marks.size() < size) marks += "\u0301";
  std::string broken_lines;
  while (broken_lines.size() < size) broken_lines += " \t\n   ";
  std::string words, digits;
  while (words.size() < size) words += "a ", digits += "1 ";
  const std::string texts[] = {words + "x",
                               digits + "x",
                               std::string(size, ' '),
                               std::string(size, ' ') + "x",
                               std::string(size, '\n'),
                               std::string(size, 'a'),
                               std::string(size, '\''),
                               std::string(size, '1'),
                               std::string(size, '\0'),
                               marks,
                               broken_lines + "x"};
  for (const std::string_view regex : {R"(\s+$)", R"(\s?\p{P}+)", R"(\p{N}{1,3})"}) {
    const CharPattern pattern = Read(regex);
    for (const std::string& text : texts) EXPECT_LE(Matches(pattern, text).size(), text.size());
  }
  for (const std::string& text : texts) EXPECT_GE(Matches(CharPattern::Gpt2(), text).size(), 1u);
}

}  // namespace
}  // namespace orrery
