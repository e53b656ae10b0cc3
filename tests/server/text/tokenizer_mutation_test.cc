// The fuzzer's checks as an ordinary test: seeds and random changes of them.

#include <gtest/gtest.h>

#include "tests/fuzz/tokenizer_fuzz.h"
#include "tests/server/text/small_tokenizers.h"

namespace orrery {
namespace {

std::vector<std::string> Seeds() {
  const std::vector<std::string> letters = {"\u2581", "a", "b"};
  const std::string file = SentencePieceJson(letters, {{"a", "b"}, {"\u2581", "ab"}}).dump();
  const std::string text = "Hello <s>  a's \xE4\xB8\xAD e\xCC\x81 123\n\n <|end|> aaaabbbb";
  std::vector<std::string> seeds = {std::string(1, '\0') + file,
                                    std::string(1, '\0') + ByteLevelJson({{"a", "b"}}).dump()};
  for (int choice = 1; choice < 12; ++choice) {
    seeds.push_back(std::string(1, static_cast<char>(choice)) + text);
    seeds.push_back(std::string(1, static_cast<char>(choice)) + std::string("ab\0b\0aab\0xaabab", 16));
  }
  return seeds;
}

TEST(TokenizerFuzzTest, SeedsAndTheirMutations) {
  RandomStream random(99);
  const std::vector<std::string> seeds = Seeds();
  for (const std::string& seed : seeds)
    FuzzTokenizer(reinterpret_cast<const uint8_t*>(seed.data()), seed.size());
  for (int round = 0; round < 20000; ++round) {
    std::string input = seeds[round % 10 == 0 ? random.Below(2) : 2 + random.Below(seeds.size() - 2)];
    for (uint64_t i = 1 + random.Below(4); i > 0; --i) {
      const size_t at = 1 + random.Below(input.size() - 1);
      switch (random.Below(4)) {
        case 0:
          input[at] = static_cast<char>(random.Below(256));
          break;
        case 1:
          input.erase(at, 1 + random.Below(8));
          break;
        case 2:
          input.insert(at, input, 1 + random.Below(input.size() - 1), 1 + random.Below(16));
          break;
        default:
          input[at] = "0\"[]{},:-"[random.Below(9)];
      }
      if (input.size() < 2) input = seeds[2];
    }
    FuzzTokenizer(reinterpret_cast<const uint8_t*>(input.data()), input.size());
  }
}

}  // namespace
}  // namespace orrery
