// Byte-pair encoding against a plain quadratic reference, and the work it does on hostile input.

#include "server/text/bpe.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "tests/server/text/small_tokenizers.h"

namespace orrery {
namespace {

const std::vector<std::string> kLetters = {"a", "b", "c", "d", "\u00e9", "\u4e2d", "\u2581"};

// A model over single characters: its letters and the results of its merges, in order of appearance.
struct SmallModel {
  std::vector<std::string> pieces;
  Merges merges;

  BpeSpec Spec() const {
    BpeSpec spec;
    spec.pieces = pieces;
    spec.is_control.assign(pieces.size(), false);
    std::map<std::string, TokenId> ids;
    for (size_t i = 0; i < pieces.size(); ++i) ids[pieces[i]] = static_cast<TokenId>(i);
    for (const auto& [left, right] : merges) {
      spec.merges.emplace_back(ids.at(left), ids.at(right));
      spec.merged.push_back(ids.at(left + right));
    }
    return spec;
  }
};

SmallModel RandomModel(RandomStream* random) {
  SmallModel model{kLetters, RandomMerges(kLetters, static_cast<int>(random->Below(40)), random)};
  std::map<std::string, bool> seen;
  for (const std::string& piece : model.pieces) seen[piece] = true;
  for (const auto& [left, right] : model.merges) {
    if (!seen[left + right]) model.pieces.push_back(left + right);
    seen[left + right] = true;
  }
  return model;
}

// The definition, word for word: merge the pair of lowest rank, leftmost first, until there is none.
std::vector<std::string> Reference(const SmallModel& model, const std::vector<std::string>& letters) {
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (size_t i = 0; i < model.merges.size(); ++i) ranks[model.merges[i]] = i;
  std::vector<std::string> parts = letters;
  while (true) {
    size_t best = parts.size(), best_rank = SIZE_MAX;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto it = ranks.find({parts[i], parts[i + 1]});
      if (it != ranks.end() && it->second < best_rank) best = i, best_rank = it->second;
    }
    if (best == parts.size()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(BpeTest, EqualsQuadraticReference) {
  RandomStream random(1);
  for (int model_index = 0; model_index < 200; ++model_index) {
    const SmallModel model = RandomModel(&random);
    const auto bpe = Bpe::Create(model.Spec());
    ASSERT_TRUE(bpe.ok());
    Bpe::Workspace work;
    for (int text_index = 0; text_index < 40; ++text_index) {
      // Both below and above the length where the heap takes over.
      const size_t length = 1 + random.Below(text_index % 2 == 0 ? 12 : 150);
      const size_t variety = 1 + random.Below(kLetters.size());
      std::vector<std::string> letters;
      std::string text;
      for (size_t i = 0; i < length; ++i) {
        letters.push_back(kLetters[random.Below(variety)]);
        text += letters.back();
      }
      std::vector<TokenId> ids;
      ASSERT_TRUE(bpe->Encode(text, &work, &ids).ok());
      std::vector<std::string> got;
      for (const TokenId id : ids) got.push_back(model.pieces[static_cast<size_t>(id)]);
      ASSERT_EQ(got, Reference(model, letters)) << text;
    }
  }
}

TEST(BpeTest, UnknownCharacters) {
  BpeSpec spec;
  spec.pieces = {"<unk>", "a"};
  spec.is_control = {true, false};
  spec.unknown = 0;
  Bpe::Workspace work;
  const auto encode = [&](const BpeSpec& s, std::string_view text) {
    std::vector<TokenId> ids;
    const auto bpe = Bpe::Create(s);
    const absl::Status status = bpe->Encode(text, &work, &ids);
    return status.ok() ? absl::StatusOr<std::vector<TokenId>>(ids) : status;
  };
  EXPECT_EQ(*encode(spec, "axyaz"), (std::vector<TokenId>{1, 0, 0, 1, 0}));
  spec.fuse_unknown = true;
  EXPECT_EQ(*encode(spec, "axyaz"), (std::vector<TokenId>{1, 0, 1, 0}));
  spec.unknown = -1;
  EXPECT_EQ(encode(spec, "ax").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(BpeTest, ByteFallbackOnlyWhereAllBytesExist) {
  BpeSpec spec;
  spec.pieces = {"<unk>", "a", "<0xC3>", "<0xA9>"};
  spec.is_control = {true, false, false, false};
  spec.unknown = 0;
  spec.byte_fallback = true;
  const auto bpe = Bpe::Create(spec);
  Bpe::Workspace work;
  std::vector<TokenId> ids;
  ASSERT_TRUE(bpe->Encode("a\u00e9\u00e8", &work, &ids).ok());  // U+00E8 is C3 A8, and A8 has no token
  EXPECT_EQ(ids, (std::vector<TokenId>{1, 2, 3, 0}));
}

TEST(BpeTest, IgnoreMergesTakesWholePieces) {
  BpeSpec spec;
  spec.pieces = {"a", "b", "ab", "abab"};
  spec.is_control.assign(4, false);
  spec.merges = {{0, 1}};
  spec.merged = {2};
  Bpe::Workspace work;
  for (const bool ignore : {false, true}) {
    spec.ignore_merges = ignore;
    const auto bpe = Bpe::Create(spec);
    std::vector<TokenId> ids;
    ASSERT_TRUE(bpe->Encode("abab", &work, &ids).ok());
    EXPECT_EQ(ids, ignore ? std::vector<TokenId>{3} : (std::vector<TokenId>{2, 2}));
  }
}

// Doubling merges a+a, aa+aa, ... make the longest chains of merges and the fullest heap.
BpeSpec DoublingSpec() {
  BpeSpec spec;
  spec.pieces = {"a"};
  for (TokenId i = 0; i < 12; ++i) {
    spec.pieces.push_back(spec.pieces.back() + spec.pieces.back());
    spec.merges.emplace_back(i, i);
    spec.merged.push_back(i + 1);
  }
  spec.is_control.assign(spec.pieces.size(), false);
  return spec;
}

TEST(BpeTest, WorkOnOneLongWordIsLinearInHeapEntries) {
  const auto bpe = Bpe::Create(DoublingSpec());
  ASSERT_TRUE(bpe.ok());
  const std::string text(1 << 18, 'a');
  Bpe::Workspace work;
  std::vector<TokenId> ids;
  ASSERT_TRUE(bpe->Encode(text, &work, &ids).ok());
  EXPECT_EQ(ids, std::vector<TokenId>(text.size() >> 12, 12));
  // One entry per pair at the start and two per merge: a merge removes a symbol, so at most 3n in all.
  EXPECT_LE(work.heap_pops, 3 * text.size());
}

TEST(BpeTest, LongTextWithoutLongMergesNeedsNoHeap) {
  // No piece joins "b" to what follows it, so the text falls into short stretches.
  BpeSpec spec;
  spec.pieces = {"a", "b", "ab"};
  spec.is_control.assign(3, false);
  spec.merges = {{0, 1}};
  spec.merged = {2};
  const auto bpe = Bpe::Create(spec);
  std::string text;
  for (int i = 0; i < 100000; ++i) text += "ab";
  Bpe::Workspace work;
  std::vector<TokenId> ids;
  ASSERT_TRUE(bpe->Encode(text, &work, &ids).ok());
  EXPECT_EQ(ids, std::vector<TokenId>(100000, 2));
  EXPECT_EQ(work.heap_pops, 0u);
}

}  // namespace
}  // namespace orrery
