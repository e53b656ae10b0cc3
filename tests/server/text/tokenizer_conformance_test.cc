// Ids of real tokenizers against those that other programs gave for the same texts. Skipped without the
// shared data.

#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "server/text/detokenizer.h"
#include "server/text/tokenizer.h"
#include "tests/server/text/test_data.h"

namespace orrery {
namespace {

std::unique_ptr<const Tokenizer> LoadXz(const std::filesystem::path& path) {
  const auto text = ReadMaybeXz(path);
  if (!text.has_value()) return nullptr;
  auto tokenizer = Tokenizer::Parse({*text, "", ""});
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

std::vector<std::string> SplitBy(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end; (end = text.find(separator, begin)) != std::string::npos; begin = end + separator.size()) {
    parts.push_back(text.substr(begin, end - begin));
  }
  parts.push_back(text.substr(begin));
  return parts;
}

struct Vocabulary {
  const char* folder;
  const char* cases;
};

class LlamaCppCases : public testing::TestWithParam<Vocabulary> {};

TEST_P(LlamaCppCases, All47Equal) {
  const auto data = SharedData();
  if (!data.has_value()) GTEST_SKIP() << "shared data not found: " << GetParam().cases;
  const auto tokenizer = LoadXz(*data / "tokenizers" / GetParam().folder / "tokenizer.json.xz");
  ASSERT_NE(tokenizer, nullptr);
  const std::string stem = std::string("ggml-vocab-") + GetParam().cases + ".gguf";
  const auto inputs = ReadMaybeXz(*data / "tokenizers" / "llama.cpp" / (stem + ".inp"));
  const auto outputs = ReadMaybeXz(*data / "tokenizers" / "llama.cpp" / (stem + ".out"));
  ASSERT_TRUE(inputs.has_value() && outputs.has_value());
  const std::vector<std::string> texts = SplitBy(*inputs, "\n__ggml_vocab_test__\n");
  const std::vector<std::string> lines = SplitBy(*outputs, "\n");
  ASSERT_EQ(texts.size(), 47u);
  ASSERT_GE(lines.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    std::istringstream line(lines[i]);
    std::vector<TokenId> expected;
    for (TokenId id; line >> id;) expected.push_back(id);
    const auto ids = tokenizer->Encode(texts[i], {.add_special = false});
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, expected) << texts[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, LlamaCppCases,
                         testing::Values(Vocabulary{"gpt2", "gpt-2"}, Vocabulary{"qwen2", "qwen2"},
                                         Vocabulary{"qwen2", "deepseek-r1-qwen"},
                                         Vocabulary{"phi-3", "phi-3"}),
                         [](const auto& info) {
                           std::string name = info.param.cases;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

class Stories : public testing::Test {
 protected:
  void SetUp() override {
    const auto data = SharedData();
    if (!data.has_value()) GTEST_SKIP() << "shared data not found: stories260K";
    const std::filesystem::path folder = *data / "models" / "stories260K";
    auto tokenizer = Tokenizer::Load(folder / "hf");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    cases_ = nlohmann::json::parse(*ReadMaybeXz(folder / "greedy_cases.json"));
  }

  std::unique_ptr<const Tokenizer> tokenizer_;
  nlohmann::json cases_;
};

TEST_F(Stories, TokenizerCasesEqual) {
  ASSERT_FALSE(cases_["tokenizer_cases"].empty());
  for (const auto& item : cases_["tokenizer_cases"]) {
    const auto text = item["text"].get<std::string>();
    const auto ids = tokenizer_->Encode(text);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, item["tokens"].get<std::vector<TokenId>>()) << text;
    EXPECT_EQ(tokenizer_->Decode(*ids), text);
  }
}

TEST_F(Stories, PromptsAndGeneratedTextEqual) {
  ASSERT_FALSE(cases_["cases"].empty());
  for (const auto& item : cases_["cases"]) {
    const auto prompt = tokenizer_->Encode(item["prompt"].get<std::string>());
    ASSERT_TRUE(prompt.ok());
    EXPECT_EQ(*prompt, item["prompt_tokens"].get<std::vector<TokenId>>());
    auto generated = item["generated_tokens"].get<std::vector<TokenId>>();
    if (!item["first_stop_index"].is_null()) generated.resize(item["first_stop_index"].get<size_t>());
    Detokenizer detokenizer(tokenizer_.get(), true, *prompt);
    std::string text;
    for (const TokenId id : generated) detokenizer.Append(id, &text);
    detokenizer.Finish(&text);
    EXPECT_EQ(text, item["generated_text"].get<std::string>());
  }
}

TEST_F(Stories, FactsOfTheFiles) {
  EXPECT_EQ(tokenizer_->bos_id(), 1);
  EXPECT_EQ(tokenizer_->eos_id(), 2);
  EXPECT_EQ(tokenizer_->role_texts().at("bos_token"), "<s>");
  EXPECT_EQ(tokenizer_->vocab_size(), 512);
  EXPECT_TRUE(tokenizer_->IsSpecial(1));
  EXPECT_FALSE(tokenizer_->IsSpecial(300));
  EXPECT_EQ(*tokenizer_->Encode(""), std::vector<TokenId>{1});
  EXPECT_TRUE(tokenizer_->Encode("", {.add_special = false})->empty());
}

}  // namespace
}  // namespace orrery
