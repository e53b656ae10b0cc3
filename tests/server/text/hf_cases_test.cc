// Every part of a tokenizer against recorded answers of the Python package `tokenizers`
// (data/make_hf_cases.py).

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "server/text/normalizer.h"
#include "server/text/pre_tokenizer.h"
#include "server/text/tokenizer.h"

namespace orrery {
namespace {

using Json = nlohmann::json;

const Json& Cases() {
  static const Json cases = [] {
    std::ifstream file(ORRERY_TEXT_TEST_DATA "/hf_cases.json");
    return Json::parse(file);
  }();
  return cases;
}

TEST(HfCasesTest, PreTokenizers) {
  ASSERT_FALSE(Cases()["pre_tokenizers"].empty());
  for (const Json& group : Cases()["pre_tokenizers"]) {
    const auto pre_tokenizer = PreTokenizer::FromJson(group["json"]);
    ASSERT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
    for (const Json& item : group["cases"]) {
      const auto text = item[0].get<std::string>();
      std::vector<std::string> pieces;
      ASSERT_TRUE(pre_tokenizer
                      ->Split(text, true,
                              [&](std::string_view piece) {
                                pieces.emplace_back(piece);
                                return absl::OkStatus();
                              })
                      .ok());
      EXPECT_EQ(Json(pieces), item[1]) << group["json"] << "\n" << item[0];
    }
  }
}

TEST(HfCasesTest, Normalizers) {
  ASSERT_FALSE(Cases()["normalizers"].empty());
  for (const Json& group : Cases()["normalizers"]) {
    const auto normalizer = Normalizer::FromJson(group["json"]);
    ASSERT_TRUE(normalizer.ok()) << normalizer.status();
    for (const Json& item : group["cases"]) {
      auto text = item[0].get<std::string>();
      normalizer->Apply(&text, nullptr);
      EXPECT_EQ(Json(text), item[1]) << group["json"] << "\n" << item[0];
      // Marks follow the text: all in, all out.
      auto marked = item[0].get<std::string>();
      std::vector<uint8_t> marks(marked.size(), 1);
      normalizer->Apply(&marked, &marks);
      EXPECT_EQ(marked, text);
      EXPECT_EQ(marks, std::vector<uint8_t>(text.size(), 1)) << group["json"];
    }
  }
}

TEST(HfCasesTest, Tokenizers) {
  ASSERT_FALSE(Cases()["tokenizers"].empty());
  for (const Json& group : Cases()["tokenizers"]) {
    const auto tokenizer = Tokenizer::Parse({group["json"].dump(), "", ""});
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    for (const Json& item : group["cases"]) {
      const auto ids = (*tokenizer)->Encode(item[0].get<std::string>(), {.parse_special = true});
      ASSERT_TRUE(ids.ok()) << ids.status();
      EXPECT_EQ(Json(*ids), item[1]) << item[0];
      EXPECT_EQ(Json((*tokenizer)->Decode(*ids)), item[2]) << item[0];
    }
  }
}

}  // namespace
}  // namespace orrery
