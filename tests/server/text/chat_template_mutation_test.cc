// The fuzz entry on random changes of the templates of the cases: nothing may crash, and the promises hold.

#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/fuzz/jinja_fuzz.h"
#include "tests/server/text/test_data.h"

namespace orrery {
namespace {

std::vector<std::string> Seeds() {
  const nlohmann::json cases =
      nlohmann::json::parse(ReadMaybeXz(ORRERY_TEXT_TEST_DATA "/chat_template_cases.json").value());
  std::vector<std::string> seeds;
  for (const char* part : {"templates", "snippets"}) {
    for (const nlohmann::json& c : cases[part]) seeds.push_back(c["source"]);
  }
  return seeds;
}

std::string Mutated(const std::vector<std::string>& seeds, std::mt19937_64& random) {
  static const std::string kPieces[] = {"{{",
                                        "}}",
                                        "{%",
                                        "%}",
                                        "{#",
                                        "#}",
                                        "-",
                                        "(",
                                        ")",
                                        "[",
                                        "]",
                                        "'",
                                        "|",
                                        "messages",
                                        " if ",
                                        " for ",
                                        " in ",
                                        " is ",
                                        ".",
                                        ",",
                                        ":",
                                        "0",
                                        "-1",
                                        "9223372036854775807",
                                        "loop",
                                        "map('map')",
                                        "~",
                                        "*",
                                        "\n",
                                        "\xE2\x98\x83",
                                        "{% set x = [x] %}",
                                        "{% endfor %}",
                                        "content",
                                        "|list",
                                        "[::-1]",
                                        "|tojson",
                                        "|join",
                                        "\\"};
  const auto pick = [&](size_t n) { return static_cast<size_t>(random() % n); };
  std::string text = seeds[pick(seeds.size())];
  for (size_t changes = 1 + pick(4); changes > 0; --changes) {
    const size_t at = pick(text.size() + 1), length = std::min(pick(12), text.size() - at);
    switch (pick(5)) {
      case 0:
        text.erase(at, length);
        break;
      case 1:
        text.insert(at, kPieces[pick(std::size(kPieces))]);
        break;
      case 2:
        text.insert(pick(text.size() + 1), text.substr(at, length));
        break;
      case 3: {
        const std::string& other = seeds[pick(seeds.size())];
        text.insert(at, other.substr(pick(other.size() + 1), 60));
        break;
      }
      default:
        if (at < text.size()) text[at] = static_cast<char>(random());
    }
  }
  return text;
}

TEST(ChatTemplateMutationTest, RandomTemplatesKeepThePromises) {
  const std::vector<std::string> seeds = Seeds();
  std::mt19937_64 random(1);
  int rendered = 0;
  for (int i = 0; i < 20000; ++i) rendered += FuzzChatTemplate(Mutated(seeds, random)) ? 1 : 0;
  EXPECT_GT(rendered, 2000);  // enough of them are still templates
}

}  // namespace
}  // namespace orrery
