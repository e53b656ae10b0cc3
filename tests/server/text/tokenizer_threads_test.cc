// One tokenizer used by many threads at once gives each of them what it gives to one alone.

#include <gtest/gtest.h>

#include <thread>

#include "server/text/detokenizer.h"
#include "server/text/tokenizer.h"
#include "tests/server/text/small_tokenizers.h"

namespace orrery {
namespace {

struct Result {
  std::vector<TokenId> ids;
  std::string text, streamed;
  bool operator==(const Result&) const = default;
};

Result ResultOf(const Tokenizer& tokenizer, const std::string& text) {
  const size_t half = text.size() / 2;
  const bool whole = half == 0 || (static_cast<unsigned char>(text[half]) & 0xC0) == 0x80;
  const TextSegment segments[] = {{std::string_view(text).substr(0, whole ? text.size() : half), true},
                                  {whole ? "" : std::string_view(text).substr(half), false}};
  Result result;
  const auto ids = tokenizer.EncodeSegments(segments);
  if (!ids.ok()) return result;
  result.ids = *ids;
  result.text = tokenizer.Decode(result.ids);
  Detokenizer detokenizer(&tokenizer, false);
  for (const TokenId id : result.ids) detokenizer.Append(id, &result.streamed);
  detokenizer.Finish(&result.streamed);
  return result;
}

TEST(TokenizerThreadsTest, ManyThreadsGetEqualResults) {
  constexpr int kThreads = 8, kTexts = 60;
  RandomStream random(91);
  const std::vector<std::string> letters = {"\u2581", "a", "b", "c", "<", "s", ">", "/", "\u00e9"};
  nlohmann::json nfkc = SentencePieceJson(letters, RandomMerges(letters, 60, &random));
  nfkc["normalizer"] = {{"type", "NFKC"}};
  nfkc["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "first"}};
  const std::vector<std::unique_ptr<const Tokenizer>> tokenizers = [&] {
    std::vector<std::unique_ptr<const Tokenizer>> made;
    made.push_back(MustParse(ByteLevelJson(RandomMerges({"\u0120", "a", "b", "<", "|"}, 60, &random))));
    made.push_back(MustParse(SentencePieceJson(letters, RandomMerges(letters, 60, &random))));
    made.push_back(MustParse(nfkc));
    return made;
  }();
  std::vector<std::string> texts;
  for (int i = 0; i < kTexts; ++i) {
    texts.push_back(
        RandomText({"a", "b", "c", " ", "<s>", "</s>", "<|start|>", "e\u0301", "1"}, 200, &random));
  }
  // [threads][texts of all tokenizers]; every thread begins elsewhere, so that different work meets.
  std::vector<std::vector<Result>> results(kThreads, std::vector<Result>(tokenizers.size() * kTexts));
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      auto& mine = results[t];
      for (size_t i = 0; i < mine.size(); ++i) {
        const size_t k = (i + t * 17) % mine.size();
        mine[k] = ResultOf(*tokenizers[k / kTexts], texts[k % kTexts]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t k = 0; k < results[0].size(); ++k) {
    const Result alone = ResultOf(*tokenizers[k / kTexts], texts[k % kTexts]);
    ASSERT_EQ(alone.ids.empty(), alone.streamed.empty());
    for (size_t t = 0; t < kThreads; ++t) ASSERT_EQ(results[t][k], alone) << "thread " << t << ", text " << k;
  }
}

}  // namespace
}  // namespace orrery
