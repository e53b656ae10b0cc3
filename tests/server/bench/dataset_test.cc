#include "server/bench/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "server/bench/model_tokens.h"
#include "server/bench/prompt_builder.h"
#include "tests/server/traces/temp_file.h"

namespace orrery::bench {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::vector<RequestShape>> Load(DatasetKind kind, const std::string& path,
                                               int64_t count = 1000,
                                               std::optional<int32_t> output_len = std::nullopt) {
  DatasetSpec spec;
  spec.kind = kind;
  spec.paths = {path};
  spec.output_len = output_len;
  // A stand-in for a tokenizer: one token per word.
  const TokenCounter words = [](const std::string& text) -> absl::StatusOr<int32_t> {
    return static_cast<int32_t>(std::count(text.begin(), text.end(), ' ')) + 1;
  };
  return LoadDataset(spec, count, 1, words);
}

TokenSpace Tokens(int32_t size, std::vector<int32_t> special) {
  auto space = TokenSpace::Create(size, std::move(special));
  EXPECT_TRUE(space.ok()) << space.status();
  return *space;
}

TEST(TokenSpace, SkipsExactlyTheSpecialIds) {
  const std::vector<int32_t> special = {0, 1, 2, 7, 8, 15, 15, 99, -3};
  const TokenSpace space = Tokens(16, special);
  std::vector<int32_t> ids;
  for (int32_t k = 0; k < space.size(); ++k) ids.push_back(space.Id(k));
  EXPECT_EQ(ids, (std::vector<int32_t>{3, 4, 5, 6, 9, 10, 11, 12, 13, 14}));
  EXPECT_FALSE(TokenSpace::Create(2, {0, 1}).ok());
  EXPECT_FALSE(TokenSpace::Create(0, {}).ok());
}

TEST(ModelTokens, ReadsAddedTokensAndPadding) {
  const std::string folder = ::testing::TempDir() + "orrery_model_tokens";
  ASSERT_EQ(std::system(("mkdir -p " + folder).c_str()), 0);
  std::ofstream(folder + "/config.json") << R"({"vocab_size": 8})";
  std::ofstream(folder + "/tokenizer.json")
      << R"({"added_tokens": [{"id": 4, "content": "<s>"}], "model": {"vocab": {"a": 0, "b": 1, "c": 2, "d": 3}}})";
  auto space = LoadTokenSpace(folder);
  ASSERT_TRUE(space.ok()) << space.status();
  EXPECT_EQ(space->size(), 4);  // 4 is special, 5 to 7 stand for nothing
  std::ofstream(folder + "/config.json") << R"({"vocab_size": "many"})";
  EXPECT_THAT(std::string(LoadTokenSpace(folder).status().message()), HasSubstr("vocab_size"));
}

RequestSpec SpecOf(int32_t prompt_tokens, std::vector<int64_t> hash_ids, uint64_t seed, double block = 512) {
  RequestSpec spec;
  spec.shape.prompt_tokens = prompt_tokens;
  spec.shape.hash_ids = std::move(hash_ids);
  spec.shape.block_tokens = block;
  spec.prompt_seed = seed;
  return spec;
}

TEST(PromptBuilder, ExactCountsOfOrdinaryIds) {
  const PromptBuilder builder(Tokens(100, {0, 50, 99}), 1);
  std::vector<int32_t> ids;
  std::vector<int> seen(100, 0);
  for (const int32_t length : {1, 2, 3, 4, 5, 511, 512, 513, 4096}) {
    builder.Build(SpecOf(length, {}, length), &ids);
    ASSERT_EQ(ids.size(), static_cast<size_t>(length));
    for (const int32_t id : ids) ++seen.at(id);
    builder.Build(SpecOf(length, {3, 4, 5}, length), &ids);
    EXPECT_EQ(ids.size(), static_cast<size_t>(length));
  }
  EXPECT_EQ(seen[0] + seen[50] + seen[99], 0);
  EXPECT_GT(*std::min_element(seen.begin() + 1, seen.begin() + 50), 20);  // about 58 each
}

TEST(PromptBuilder, PureFunctionOfSeeds) {
  const PromptBuilder a(Tokens(1000, {}), 1);
  const PromptBuilder b(Tokens(1000, {}), 2);
  std::vector<int32_t> x, y;
  a.Build(SpecOf(64, {}, 5), &x);
  a.Build(SpecOf(64, {}, 5), &y);
  EXPECT_EQ(x, y);
  a.Build(SpecOf(64, {}, 6), &y);
  EXPECT_NE(x, y);
  a.Build(SpecOf(64, {9}, 5), &x);
  b.Build(SpecOf(64, {9}, 5), &y);
  EXPECT_NE(x, y);
}

TEST(PromptBuilder, EqualBlocksGiveEqualTokens) {
  const PromptBuilder builder(Tokens(50'000, {}), 1);
  std::vector<int32_t> x, y, z;
  builder.Build(SpecOf(1300, {10, 11, 12}, 1), &x);
  builder.Build(SpecOf(1500, {10, 11, 13}, 2), &y);
  const auto shared = std::mismatch(x.begin(), x.end(), y.begin()).first - x.begin();
  EXPECT_EQ(shared, 1024);
  // A shorter prompt holds a prefix of its last block.
  builder.Build(SpecOf(600, {10, 11}, 3), &z);
  EXPECT_TRUE(std::equal(z.begin(), z.end(), x.begin()));
  // Past the ids everything is the request's own.
  builder.Build(SpecOf(600, {10}, 4), &z);
  EXPECT_TRUE(std::equal(z.begin(), z.begin() + 512, x.begin()));
  EXPECT_NE(z[512], x[512]);
}

TEST(PromptBuilder, ScaledBlocksStayShared) {
  const PromptBuilder builder(Tokens(50'000, {}), 1);
  std::vector<RequestShape> shapes(2);
  shapes[0].prompt_tokens = 10'000;
  shapes[0].output_tokens = 100;
  shapes[1].prompt_tokens = 2000;
  shapes[1].output_tokens = 10;
  for (int64_t b = 0; b < 20; ++b) shapes[0].hash_ids.push_back(b);
  shapes[1].hash_ids = {0, 1, 77, 78};
  for (RequestShape& shape : shapes) shape.block_tokens = 512;
  const double factor = ScaleLengths(1000, &shapes);
  EXPECT_DOUBLE_EQ(factor, 1000 / 10'100.0);
  RequestSpec long_spec, short_spec;
  long_spec.shape = shapes[0];
  short_spec.shape = shapes[1];
  short_spec.prompt_seed = 1;
  std::vector<int32_t> x, y;
  builder.Build(long_spec, &x);
  builder.Build(short_spec, &y);
  EXPECT_EQ(x.size(), 990u);
  EXPECT_EQ(y.size(), 198u);
  const auto shared = std::mismatch(y.begin(), y.end(), x.begin()).first - y.begin();
  EXPECT_EQ(shared, static_cast<int64_t>(1024 * factor));
}

TEST(ScaleLengths, OneFactorFitsTheLargest) {
  std::vector<RequestShape> shapes(4);
  const std::vector<std::pair<int32_t, int32_t>> lengths = {{3000, 1000}, {40, 2}, {1, 1}, {0, 256}};
  for (size_t i = 0; i < shapes.size(); ++i) {
    shapes[i].prompt_tokens = lengths[i].first;
    shapes[i].output_tokens = lengths[i].second;
  }
  EXPECT_EQ(ScaleLengths(400, &shapes), 0.1);
  EXPECT_EQ(shapes[0].prompt_tokens, 300);
  EXPECT_EQ(shapes[0].output_tokens, 100);
  EXPECT_EQ(shapes[1].prompt_tokens, 4);
  EXPECT_EQ(shapes[1].output_tokens, 1);
  EXPECT_EQ(shapes[2].prompt_tokens, 1);
  EXPECT_EQ(shapes[3].output_tokens, 256);   // text: its length is not known here
  EXPECT_EQ(ScaleLengths(400, &shapes), 1);  // never up
  // Whatever the lengths, everything fits.
  for (int32_t context = 2; context < 40; ++context) {
    std::vector<RequestShape> some(3);
    some[0].prompt_tokens = 997, some[0].output_tokens = 3;
    some[1].prompt_tokens = 5, some[1].output_tokens = 991;
    some[2].prompt_tokens = 500, some[2].output_tokens = 500;
    ScaleLengths(context, &some);
    for (const RequestShape& shape : some) EXPECT_LE(shape.prompt_tokens + shape.output_tokens, context);
  }
}

TEST(RandomDataset, LengthsFillTheirRange) {
  DatasetSpec spec;
  spec.input_len = 100;
  spec.output_len = 10;
  spec.range_ratio = 0.2;
  auto shapes = LoadDataset(spec, 2000, 3, {});
  ASSERT_TRUE(shapes.ok());
  std::set<int32_t> inputs, outputs;
  double mean = 0;
  for (const RequestShape& shape : *shapes) {
    inputs.insert(shape.prompt_tokens);
    outputs.insert(shape.output_tokens);
    mean += shape.prompt_tokens / 2000.0;
    EXPECT_TRUE(shape.fixed_output);
  }
  EXPECT_EQ(*inputs.begin(), 80);
  EXPECT_EQ(*inputs.rbegin(), 120);
  EXPECT_EQ(outputs, (std::set<int32_t>{8, 9, 10, 11, 12}));
  EXPECT_NEAR(mean, 100, 1);
  spec.range_ratio = 0;
  shapes = LoadDataset(spec, 50, 3, {});
  for (const RequestShape& shape : *shapes) EXPECT_EQ(shape.prompt_tokens, 100);
  spec.range_ratio = 1;
  EXPECT_THAT(std::string(LoadDataset(spec, 50, 3, {}).status().message()), HasSubstr("range-ratio"));
  spec = {};
  spec.input_len = 0;
  EXPECT_THAT(std::string(LoadDataset(spec, 50, 3, {}).status().message()), HasSubstr("input-len"));
}

TEST(PromptsDataset, TurnsLinesAndPrompts) {
  TempFile questions(
      "{\"question_id\": 1, \"turns\": [\"Hello?\", \"Why?\"]}\n\n{\"turns\": [\"A\"]}\n{\"prompt\": "
      "\"raw\"}\n",
      ".jsonl");
  auto shapes = Load(DatasetKind::kPrompts, questions.path());
  ASSERT_TRUE(shapes.ok()) << shapes.status();
  ASSERT_EQ(shapes->size(), 4u);
  EXPECT_EQ((*shapes)[1].text, "Why?");
  EXPECT_EQ((*shapes)[1].kind, PromptKind::kChat);
  EXPECT_EQ((*shapes)[1].output_tokens, 256);
  EXPECT_FALSE((*shapes)[1].fixed_output);
  EXPECT_EQ((*shapes)[3].kind, PromptKind::kText);
  EXPECT_EQ(Load(DatasetKind::kPrompts, questions.path(), 2, 12)->back().output_tokens, 12);
  TempFile plain("first line\n  \n{\"turns\": 3}\n", ".txt");
  shapes = Load(DatasetKind::kPrompts, plain.path());
  ASSERT_EQ(shapes->size(), 2u);
  EXPECT_EQ((*shapes)[1].text, "{\"turns\": 3}");
  EXPECT_EQ((*shapes)[1].kind, PromptKind::kText);
}

TEST(PromptsDataset, MalformedRowsNameTheLine) {
  for (const char* row :
       {"{\"turns\": []}", "{\"turns\": \"x\"}", "{\"turns\": [3]}", "{\"prompt\": 3}", "[]", "{"}) {
    TempFile file("{\"turns\": [\"ok\"]}\n" + std::string(row), ".jsonl");
    const auto status = Load(DatasetKind::kPrompts, file.path()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << row;
    EXPECT_THAT(std::string(status.message()), HasSubstr(file.path() + ":2: "));
  }
  TempFile empty("\n\n", ".txt");
  EXPECT_THAT(std::string(Load(DatasetKind::kPrompts, empty.path()).status().message()),
              HasSubstr("no requests"));
}

constexpr char kConversations[] = R"([
 {"id": "a", "conversations": [{"from": "human", "value": "one two"}, {"from": "gpt", "value": "three four five"}]},
 {"id": "b", "conversations": [{"from": "human", "value": "alone"}]},
 {"id": "c", "conversations": []},
 {"id": "d", "conversations": [{"from": "human", "value": "x", "extra": {"y": [1]}}, {"from": "gpt", "value": "z"}]}
])";

TEST(ShareGptDataset, FirstMessageAndLengthOfTheReply) {
  TempFile file(kConversations, ".json");
  auto shapes = Load(DatasetKind::kShareGpt, file.path());
  ASSERT_TRUE(shapes.ok()) << shapes.status();
  ASSERT_EQ(shapes->size(), 2u);
  EXPECT_EQ((*shapes)[0].text, "one two");
  EXPECT_EQ((*shapes)[0].output_tokens, 3);
  EXPECT_EQ((*shapes)[1].output_tokens, 1);
  EXPECT_EQ(Load(DatasetKind::kShareGpt, file.path(), 1)->size(), 1u);
  EXPECT_EQ(Load(DatasetKind::kShareGpt, file.path(), 9, 40)->front().output_tokens, 40);
  TempFile lines("{\"conversations\": [{\"value\": \"q\"}, {\"value\": \"r s\"}]}\n", ".jsonl");
  EXPECT_EQ(Load(DatasetKind::kShareGpt, lines.path())->front().output_tokens, 2);
  for (const char* bytes : {"[{\"a\": 1}]", "[", "{}", "[{\"conversations\": [1, 2]}]"}) {
    TempFile bad(bytes, ".json");
    EXPECT_EQ(Load(DatasetKind::kShareGpt, bad.path()).status().code(), absl::StatusCode::kInvalidArgument)
        << bytes;
  }
}

TEST(Dataset, NamesAndPathsAreChecked) {
  EXPECT_THAT(std::string(ParseDatasetKind("alpaca").status().message()),
              HasSubstr("unknown 'alpaca' (lengths,"));
  EXPECT_THAT(std::string(ParseDatasetKind("mooncak").status().message()),
              HasSubstr("did you mean 'mooncake'?"));
  DatasetSpec spec;
  spec.kind = DatasetKind::kAzure;
  EXPECT_THAT(std::string(LoadDataset(spec, 1, 0, {}).status().message()), HasSubstr("path: "));
  spec.kind = DatasetKind::kRandom;
  spec.paths = {"x"};
  EXPECT_THAT(std::string(LoadDataset(spec, 1, 0, {}).status().message()), HasSubstr("path: "));
}

TEST(RealData, QuestionsAndTraces) {
  const std::string data = SharedData();
  if (data.empty()) GTEST_SKIP() << "the shared public data is not here";
  DatasetSpec spec;
  spec.kind = DatasetKind::kPrompts;
  spec.paths = {data + "/prompts/mt_bench_questions.jsonl", data + "/prompts/vicuna_bench_questions.jsonl"};
  auto turns = LoadDataset(spec, 10'000, 0, {});
  ASSERT_TRUE(turns.ok()) << turns.status();
  EXPECT_EQ(turns->size(), 240u);
  auto azure = Load(DatasetKind::kAzure, data + "/traces/azure-2023/AzureLLMInferenceTrace_conv.csv.xz", 500);
  ASSERT_TRUE(azure.ok()) << azure.status();
  EXPECT_EQ(azure->size(), 500u);
  EXPECT_NEAR(ScaleLengths(2048, &*azure), 2048.0 / 4186, 1e-12);
  auto sonnet = Load(DatasetKind::kPrompts, data + "/prompts/sonnet.txt", 10'000);
  ASSERT_TRUE(sonnet.ok());
  EXPECT_GT(sonnet->size(), 500u);
}

}  // namespace
}  // namespace orrery::bench
