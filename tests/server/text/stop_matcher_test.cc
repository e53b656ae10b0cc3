// Stop strings against a search over the whole text, for every way to cut it.

#include "server/text/stop_matcher.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "scheduler/base/random.h"
#include "server/text/utf8.h"

namespace orrery {
namespace {

struct Outcome {
  std::string text;
  int stop = -1;
  bool operator==(const Outcome&) const = default;
};

// The stop string that ends first, the longest of those, found by trying every position.
Outcome Reference(const std::vector<std::string>& stops, const std::string& text, bool include) {
  for (size_t end = 1; end <= text.size(); ++end) {
    int best = -1;
    for (size_t i = 0; i < stops.size(); ++i) {
      const bool ends_here =
          end >= stops[i].size() && text.compare(end - stops[i].size(), stops[i].size(), stops[i]) == 0;
      if (ends_here && (best < 0 || stops[i].size() > stops[static_cast<size_t>(best)].size()))
        best = static_cast<int>(i);
    }
    if (best < 0) continue;
    return {text.substr(0, include ? end : end - stops[static_cast<size_t>(best)].size()), best};
  }
  return {text, -1};
}

TEST(StopMatcherTest, EqualsSearchAtEveryChunking) {
  RandomStream random(3);
  const auto word = [&](uint64_t max) {
    std::string text;
    for (uint64_t i = 1 + random.Below(max); i > 0; --i) {
      const uint64_t kind = random.Below(7);
      text += kind == 0 ? "\u00e9" : std::string(1, "aab"[random.Below(3)]);
    }
    return text;
  };
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops;
    for (uint64_t i = random.Below(4); i > 0; --i) stops.push_back(word(5));
    const std::string text = word(24);
    const bool include = random.Below(2) == 0;
    const auto compiled = StopStrings::Create(stops);
    ASSERT_TRUE(compiled.ok());
    StopMatcher matcher(*compiled, include);
    Outcome got;
    for (size_t i = 0; i < text.size();) {
      // Chunks are whole characters, as a detokenizer gives them.
      size_t end = i + 1 + random.Below(6);
      while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
      const int stop = matcher.Push(std::string_view(text).substr(i, end - i), &got.text);
      if (stop >= 0) got.stop = stop;
      ASSERT_EQ(FindInvalidUtf8(got.text), std::string_view::npos);
      size_t longest = 1;
      for (const std::string& s : stops) longest = std::max(longest, s.size());
      ASSERT_LT(matcher.held_bytes(), longest);  // a proper beginning of a stop string
      i = end;
    }
    matcher.Finish(&got.text);
    ASSERT_EQ(got, Reference(stops, text, include)) << text;
  }
}

TEST(StopMatcherTest, HoldsBackOnlyWhatCanBecomeAStop) {
  StopMatcher matcher(*StopStrings::Create({"\n\nUser:", "STOP"}));
  std::string out;
  EXPECT_EQ(matcher.Push("Hello ST", &out), -1);
  EXPECT_EQ(out, "Hello ");
  EXPECT_EQ(matcher.Push("ART\n", &out), -1);
  EXPECT_EQ(out, "Hello START");
  EXPECT_EQ(matcher.held_bytes(), 1u);
  EXPECT_EQ(matcher.Push("\nUser: more", &out), 0);
  EXPECT_EQ(out, "Hello START");
  EXPECT_TRUE(matcher.matched());
  EXPECT_EQ(matcher.Push("ignored", &out), -1);
  matcher.Finish(&out);
  EXPECT_EQ(out, "Hello START");
}

TEST(StopMatcherTest, WithoutStopsEverythingPasses) {
  StopMatcher matcher(nullptr);
  std::string out;
  EXPECT_EQ(matcher.Push("abc", &out), -1);
  EXPECT_EQ(out, "abc");
}

TEST(StopMatcherTest, RefusesWithFieldAndLimit) {
  const auto message = [](const std::vector<std::string>& stops) {
    const auto compiled = StopStrings::Create(stops);
    EXPECT_EQ(compiled.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(compiled.status().message());
  };
  EXPECT_EQ(message({"ok", ""}), "stop[1]: 0 bytes, allowed are 1 to 1024");
  EXPECT_EQ(message({std::string(1 << 20, 'x')}), "stop[0]: 1048576 bytes, allowed are 1 to 1024");
  EXPECT_EQ(message(std::vector<std::string>(10000, "x")), "stop: 10000 strings, the limit is 64");
  EXPECT_EQ(message({"\xE2\x82"}), "stop[0]: not valid UTF-8");
  EXPECT_TRUE(
      StopStrings::Create(std::vector<std::string>(kMaxStopStrings, std::string(kMaxStopBytes, 'x'))).ok());
}

}  // namespace
}  // namespace orrery
