#include "server/text/utf8.h"

#include <gtest/gtest.h>

#include "scheduler/base/random.h"

namespace orrery {
namespace {

TEST(Utf8Test, FindsTheFirstBadByte) {
  EXPECT_EQ(FindInvalidUtf8(""), std::string_view::npos);
  EXPECT_EQ(FindInvalidUtf8("plain ascii text \u00e9 \u4e2d \U0001F600"), std::string_view::npos);
  EXPECT_EQ(FindInvalidUtf8(std::string_view("a\0b", 3)), std::string_view::npos);
  EXPECT_EQ(FindInvalidUtf8("abc\x80"), 3u);
  EXPECT_EQ(FindInvalidUtf8("\xC0\xAF"), 0u);                  // overlong
  EXPECT_EQ(FindInvalidUtf8("\xE0\x80\x80"), 0u);              // overlong
  EXPECT_EQ(FindInvalidUtf8("x\xED\xA0\x80"), 1u);             // surrogate
  EXPECT_EQ(FindInvalidUtf8("\xF4\x90\x80\x80"), 0u);          // above U+10FFFF
  EXPECT_EQ(FindInvalidUtf8("\xF0\xA0\x80\x80\xE2\x82"), 4u);  // unfinished
}

TEST(Utf8Test, EveryCodePointRoundTrips) {
  std::string text;
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    text.clear();
    AppendUtf8(c, &text);
    ASSERT_EQ(FindInvalidUtf8(text), std::string_view::npos) << c;
    const CodePoint read = DecodeValidUtf8(text.data());
    ASSERT_EQ(read.value, c);
    ASSERT_EQ(read.length, text.size());
  }
}

std::string Streamed(std::string_view bytes, const std::vector<size_t>& cuts) {
  Utf8Stream stream;
  std::string out;
  size_t begin = 0;
  for (const size_t cut : cuts) {
    stream.Append(bytes.substr(begin, cut - begin), &out);
    EXPECT_EQ(FindInvalidUtf8(out), std::string_view::npos);  // never half a character
    begin = cut;
  }
  stream.Append(bytes.substr(begin), &out);
  stream.Finish(&out);
  return out;
}

TEST(Utf8Test, OneReplacementPerMaximalBadPart) {
  // The example of the Unicode standard, table 3-11.
  EXPECT_EQ(Streamed("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64", {}),
            "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd");
  EXPECT_EQ(Streamed("\xE2\x82", {}), "\uFFFD");
  EXPECT_EQ(Streamed("\xE2\x82\xE2\x82\xAC", {}), "\uFFFD\u20AC");
}

TEST(Utf8Test, ChunkingMakesNoDifference) {
  RandomStream random(7);
  const std::string_view interesting("a\x80\xBF\xC2\xC0\xE0\xED\xA0\xE2\x82\xAC\xF0\x90\xF4\x8F\xFF", 16);
  for (int round = 0; round < 5000; ++round) {
    std::string bytes;
    for (uint64_t i = random.Below(12); i > 0; --i) bytes += interesting[random.Below(interesting.size())];
    std::vector<size_t> cuts;
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (random.Below(2) == 0) cuts.push_back(i);
    }
    const std::string whole = Streamed(bytes, {});
    ASSERT_EQ(Streamed(bytes, cuts), whole);
    if (FindInvalidUtf8(bytes) == std::string_view::npos) {
      ASSERT_EQ(whole, bytes);
    }
  }
}

}  // namespace
}  // namespace orrery
