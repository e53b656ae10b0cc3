// The computing executor end to end: tokens and logits against the double-precision reference, and the
// promise that a sequence's results do not depend on batch, chunking, preemption or threads.
#include "engine/model_executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/cpu_engine.h"
#include "kernels/cpu/cpu_features.h"
#include "scheduler/base/random.h"
#include "tests/engine/plan_driver.h"
#include "tests/engine/prefix_logits.h"
#include "tests/engine/reference_model.h"
#include "tests/engine/stories.h"
#include "tests/engine/test_model.h"

namespace orrery {
namespace {

using nlohmann::json;
using testing::Greedy;
using testing::PlanDriver;
using testing::PrefixLogits;
using testing::ReferenceModel;
using testing::RelativeError;
using testing::StoryCase;
using testing::TwentyStoryCases;

EngineOptions SmallOptions(const std::string& dir) {
  EngineOptions options;
  options.model_dir = dir;
  options.num_threads = 1;  // more only where a test is about threads: the machine is shared
  options.kv_cache_tokens = 16 * 1024;
  options.max_num_seqs = 64;
  options.max_step_tokens = 256;
  return options;
}

std::unique_ptr<ModelExecutor> Load(const EngineOptions& options) {
  auto engine = LoadCpuEngine(options);
  EXPECT_TRUE(engine.ok()) << engine.status();
  return engine.ok() ? *std::move(engine) : nullptr;
}

std::vector<TokenId> RandomPrompt(RandomStream& random, int length, int vocab) {
  std::vector<TokenId> prompt(static_cast<size_t>(length));
  for (TokenId& id : prompt) id = static_cast<TokenId>(random.Below(static_cast<uint64_t>(vocab)));
  return prompt;
}

#define STORIES_OR_SKIP(dir)                                              \
  const std::string dir = testing::SharedData("data/models/stories260K"); \
  if (dir.empty()) GTEST_SKIP() << "shared data/models/stories260K is not there"

TEST(Stories260K, GreedyTokensEqualTheRecordedOnes) {
  STORIES_OR_SKIP(dir);
  const json cases = json::parse(testing::ReadFile(dir + "/greedy_cases.json"));
  const auto engine = Load(SmallOptions(dir + "/hf"));
  ASSERT_NE(engine, nullptr);
  for (const json& c : cases["cases"]) {
    PlanDriver driver(*engine);
    const int handle = driver.Add(c["prompt_tokens"], 200, Greedy());
    ASSERT_TRUE(driver.RunAll(256).ok());
    EXPECT_EQ(driver.sequence(handle).output, c["generated_tokens"].get<std::vector<TokenId>>())
        << c["prompt"];
    driver.Release(handle);
    ASSERT_TRUE(driver.Step({}).ok());
  }
}

// With every instruction set that this machine can pretend to lack.
TEST(Stories260K, GreedyTokensAreTheSameOnLesserMachines) {
  STORIES_OR_SKIP(dir);
  const json cases = json::parse(testing::ReadFile(dir + "/greedy_cases.json"));
  const Isa before = ActiveIsa();
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (isa > DetectedIsa()) continue;
    LimitIsa(isa);
    const auto engine = Load(SmallOptions(dir + "/hf"));
    ASSERT_NE(engine, nullptr);
    PlanDriver driver(*engine);
    for (const json& c : cases["cases"]) driver.Add(c["prompt_tokens"], 200, Greedy());
    ASSERT_TRUE(driver.RunAll(64).ok());
    for (size_t i = 0; i < cases["cases"].size(); ++i) {
      EXPECT_EQ(driver.sequence(static_cast<int>(i)).output,
                cases["cases"][i]["generated_tokens"].get<std::vector<TokenId>>())
          << NameOf(isa);
    }
  }
  LimitIsa(before);
}

TEST(Stories260K, TwentyPromptsAloneEqualTheReference) {
  STORIES_OR_SKIP(dir);
  const auto engine = Load(SmallOptions(dir + "/hf"));
  ASSERT_NE(engine, nullptr);
  for (const StoryCase& c : TwentyStoryCases(dir + "/hf")) {
    PlanDriver driver(*engine);
    driver.Add(c.prompt, 200, Greedy());
    ASSERT_TRUE(driver.RunAll(256).ok());
    EXPECT_EQ(driver.sequence(0).output, c.output) << c.prompt.size() << " tokens of prompt";
    driver.Release(0);
    ASSERT_TRUE(driver.Step({}).ok());
  }
}

// The same twenty and 13 that sample, all in one batch: each of the twenty has 32 others beside it, its
// prompt comes in chunks and it loses its KV at least once inside the prompt or the answer.
TEST(Stories260K, TwentyPromptsAmong32OthersEqualTheReference) {
  STORIES_OR_SKIP(dir);
  constexpr int kLive = 33;
  struct Seen {
    std::vector<int32_t> preempt_at;  // computed tokens; the next one last
    int prompt_chunks = 0, full_steps = 0;
  };
  const std::vector<StoryCase>& cases = TwentyStoryCases(dir + "/hf");
  const auto engine = Load(SmallOptions(dir + "/hf"));
  ASSERT_NE(engine, nullptr);
  PlanDriver driver(*engine);
  RandomStream random(7);
  for (const StoryCase& c : cases) driver.Add(c.prompt, 200, Greedy());
  for (int i = static_cast<int>(cases.size()); i < kLive; ++i) {
    Sampling sampling;
    sampling.seed = static_cast<uint64_t>(i);
    driver.Add(RandomPrompt(random, 5 + 3 * i, 512), 160 + i, sampling);
  }
  std::vector<Seen> seen(kLive);
  for (int handle = 0; handle < kLive; ++handle) {
    const uint64_t prompt = driver.sequence(handle).submit->tokens->size();
    seen[static_cast<size_t>(handle)].preempt_at = {static_cast<int32_t>(prompt + random.Below(150)),
                                                    static_cast<int32_t>(1 + random.Below(prompt / 2))};
  }
  for (int step = 0;; ++step) {
    std::vector<std::pair<int, int32_t>> work;
    bool unfinished = false;
    for (int handle = 0; handle < kLive; ++handle) {
      const auto& sequence = driver.sequence(handle);
      if (sequence.done()) continue;
      unfinished = true;
      if (step % 2 == 1 && random.Below(5) == 0) continue;  // every other step leaves some out
      Seen& mine = seen[static_cast<size_t>(handle)];
      if (!mine.preempt_at.empty() && sequence.computed >= mine.preempt_at.back()) {
        driver.Preempt(handle);
        mine.preempt_at.pop_back();
      }
      mine.prompt_chunks += sequence.output.empty();
      work.emplace_back(handle, static_cast<int32_t>(1 + random.Below(7)));
    }
    if (!unfinished) break;
    ASSERT_TRUE(driver.Step(work).ok());
    for (const auto& [handle, count] : work) {
      seen[static_cast<size_t>(handle)].full_steps += work.size() == kLive;
    }
  }
  for (size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(driver.sequence(static_cast<int>(i)).output, cases[i].output) << "prompt " << i;
    EXPECT_TRUE(seen[i].preempt_at.empty()) << "prompt " << i;
    EXPECT_GE(seen[i].prompt_chunks, 3) << "prompt " << i;
    EXPECT_GE(seen[i].full_steps, 50) << "prompt " << i;
  }
}

struct Variant {
  std::string name, family;
  json changes;
};

std::vector<Variant> Variants() {
  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 32}};
  return {
      {"Llama", "llama", {}},
      {"LlamaTied", "llama", {{"tie_word_embeddings", true}}},
      {"LlamaBiases", "llama", {{"attention_bias", true}, {"mlp_bias", true}}},
      {"LlamaRopeLlama3", "llama", {{"rope_scaling", llama3}, {"rope_theta", 500000.0}}},
      {"LlamaRopeLinear", "llama", {{"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}}}},
      {"LlamaOddSizes",
       "llama",
       {{"hidden_size", 52}, {"head_dim", 10}, {"intermediate_size", 77}, {"vocab_size", 131}}},
      {"LlamaOneKvHead", "llama", {{"num_key_value_heads", 1}, {"head_dim", 80}}},
      {"Mistral", "mistral", {{"sliding_window", nullptr}}},
      {"Qwen2", "qwen2", {{"num_key_value_heads", 6}}},
      {"Qwen2Tied", "qwen2", {{"tie_word_embeddings", true}, {"rope_theta", 1e6}}},
      {"Qwen3",
       "qwen3",
       {{"head_dim", 32}, {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1e6}}}}},
      {"Qwen3TiedBias", "qwen3", {{"tie_word_embeddings", true}, {"attention_bias", true}}},
  };
}

std::vector<float> OnHost(const Tensor& logits) {
  const auto* const data = static_cast<const float*>(logits.data);
  return {data, data + logits.rows * logits.cols};
}

class FamilyTest : public ::testing::TestWithParam<Variant> {
 protected:
  // Writes the variant's model as `dtype`, runs both and returns the error over all positions of 64 tokens.
  double Error(DType stored, const std::function<void(EngineOptions&)>& change) {
    testing::TempDir dir;
    json config = testing::TinyConfig(GetParam().family);
    if (!GetParam().changes.is_null()) config.update(GetParam().changes);
    testing::WriteModel(dir.path(), config, testing::RandomTensors(config, 11), stored);
    EngineOptions options = SmallOptions(dir.path());
    change(options);
    const auto engine = Load(options);
    if (engine == nullptr) return std::numeric_limits<double>::infinity();
    RandomStream random(3);
    const std::vector<TokenId> tokens = RandomPrompt(random, 64, config["vocab_size"]);
    return RelativeError(PrefixLogits(*engine, tokens, 33, OnHost),
                         ReferenceModel(dir.path()).AllLogits(tokens));
  }
};

INSTANTIATE_TEST_SUITE_P(All, FamilyTest, ::testing::ValuesIn(Variants()),
                         [](const auto& info) { return info.param.name; });

TEST_P(FamilyTest, LogitsEqualTheReferenceInF32) {
  const double error = Error(DType::kF32, [](EngineOptions&) {});
  RecordProperty("relative_error", absl::StrCat(error));
  EXPECT_LT(error, 1e-5);
}

// f16 weights stay f16 and are multiplied in f32; only the KV pool rounds.
TEST_P(FamilyTest, LogitsEqualTheReferenceInF16) {
  EXPECT_LT(Error(DType::kF16, [](EngineOptions&) {}), 2e-3);
  EXPECT_LT(Error(DType::kF16, [](EngineOptions& options) { options.kv_dtype = DType::kF32; }), 1e-5);
}

TEST_P(FamilyTest, LogitsAreNearTheReferenceInBf16) {
  const double error = Error(DType::kBF16, [](EngineOptions&) {});
  RecordProperty("relative_error", absl::StrCat(error));
  EXPECT_LT(error, 2e-2);
}

TEST_P(FamilyTest, LogitsAreNearTheReferenceWithInt8Weights) {
  const double error = Error(DType::kBF16, [](EngineOptions& options) { options.int8_weights = true; });
  RecordProperty("relative_error", absl::StrCat(error));
  EXPECT_LT(error, 4e-2);
}

// A checkpoint of each dtype, run alone, in chunks, in a crowd, after preemption, on one thread and on three:
// the same bits.
class InvarianceTest : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(All, InvarianceTest,
                         ::testing::Values(DType::kF32, DType::kBF16, DType::kF16, DType::kI8));

TEST_P(InvarianceTest, LogitsAreBitwiseTheSameHoweverTheyAreComputed) {
  testing::TempDir dir;
  json config = testing::TinyConfig("qwen3");
  config["tie_word_embeddings"] = true;
  const bool int8 = GetParam() == DType::kI8;
  testing::WriteModel(dir.path(), config, testing::RandomTensors(config, 5),
                      int8 ? DType::kBF16 : GetParam());
  EngineOptions options = SmallOptions(dir.path());
  options.int8_weights = int8;
  const auto engine = Load(options);
  ASSERT_NE(engine, nullptr);
  RandomStream random(9);
  const std::vector<TokenId> tokens = RandomPrompt(random, 60, 150);
  const std::vector<float> whole = PrefixLogits(*engine, tokens, 256, OnHost);
  EXPECT_EQ(whole, PrefixLogits(*engine, tokens, 1, OnHost)) << "token by token";
  EXPECT_EQ(whole, PrefixLogits(*engine, tokens, 19, OnHost)) << "in chunks";
  for (const int threads : {2, 3}) {
    options.num_threads = threads;
    const auto other = Load(options);
    ASSERT_NE(other, nullptr);
    EXPECT_EQ(whole, PrefixLogits(*other, tokens, 256, OnHost)) << threads << " threads";
  }
}

// Log-probabilities of a prompt alone and whole, in odd chunks, on two threads, and in a crowd that is
// preempted in the middle of the prompt and behind it: the same bits, every position once.
TEST_P(InvarianceTest, PromptLogprobsAreBitwiseTheSameHoweverTheyAreComputed) {
  testing::TempDir dir;
  const json config = testing::TinyConfig("qwen3");
  const bool int8 = GetParam() == DType::kI8;
  testing::WriteModel(dir.path(), config, testing::RandomTensors(config, 8),
                      int8 ? DType::kBF16 : GetParam());
  EngineOptions options = SmallOptions(dir.path());
  options.int8_weights = int8;
  const auto engine = Load(options);
  ASSERT_NE(engine, nullptr);
  RandomStream random(13);
  const std::vector<TokenId> prompt = RandomPrompt(random, 150, 150);
  Sampling sampling = Greedy();
  sampling.num_prompt_logprobs = 4;
  const auto alone = [&](ModelExecutor& executor, int32_t chunk) {
    PlanDriver driver(executor);
    const int handle = driver.Add(prompt, 2, sampling);
    EXPECT_TRUE(driver.RunAll(chunk).ok());
    const PromptLogprobs scored = driver.sequence(handle).scored;
    driver.Release(handle);
    EXPECT_TRUE(driver.Step({}).ok());
    return scored;
  };
  const PromptLogprobs whole = alone(*engine, 256);
  ASSERT_EQ(whole.chosen.size(), 149u);
  const auto expect_whole = [&](const PromptLogprobs& other, const char* what) {
    EXPECT_EQ(other.chosen, whole.chosen) << what;
    EXPECT_EQ(other.top, whole.top) << what;
  };
  expect_whole(alone(*engine, 7), "in chunks of 7");
  expect_whole(alone(*engine, 67), "in chunks of 67");
  options.num_threads = 2;
  const auto other = Load(options);
  ASSERT_NE(other, nullptr);
  expect_whole(alone(*other, 256), "two threads");

  PlanDriver crowd(*engine);
  std::vector<std::pair<int, int32_t>> work;
  for (int i = 0; i < 12; ++i) {
    Sampling theirs = i % 3 == 0 ? sampling : Greedy();
    if (i % 3 == 1) theirs.num_prompt_logprobs = 1;
    work.emplace_back(crowd.Add(i == 6 ? prompt : RandomPrompt(random, 5 + 9 * i, 150), 40, theirs), 11);
  }
  for (int step = 0; step < 50; ++step) {
    if (step == 5 || step == 25) crowd.Preempt(6);  // 55 positions done; all of them
    std::erase_if(work, [&](const auto& entry) { return crowd.sequence(entry.first).done(); });
    ASSERT_TRUE(crowd.Step(work).ok());
  }
  EXPECT_GT(crowd.sequence(6).output.size(), 5u);
  expect_whole(crowd.sequence(6).scored, "in a crowd");
}

// What a sequence samples depends on its seed and its tokens, not on its neighbours.
TEST_P(InvarianceTest, SampledTokensDoNotDependOnTheBatch) {
  testing::TempDir dir;
  const json config = testing::TinyConfig("qwen2");
  const bool int8 = GetParam() == DType::kI8;
  testing::WriteModel(dir.path(), config, testing::RandomTensors(config, 6),
                      int8 ? DType::kBF16 : GetParam());
  EngineOptions options = SmallOptions(dir.path());
  options.int8_weights = int8;
  const auto engine = Load(options);
  ASSERT_NE(engine, nullptr);
  RandomStream random(21);
  std::vector<std::vector<TokenId>> prompts;
  std::vector<Sampling> samplings;
  for (int i = 0; i < 24; ++i) {
    prompts.push_back(RandomPrompt(random, 1 + 3 * i, 150));
    Sampling sampling;
    sampling.temperature = i % 4 == 0 ? 0.0f : 0.5f + 0.1f * static_cast<float>(i);
    sampling.top_k = i % 3 == 0 ? 20 : 0;
    sampling.top_p = i % 5 == 0 ? 0.8f : 1.0f;
    sampling.repetition_penalty = i % 7 == 0 ? 1.3f : 1.0f;
    sampling.num_logprobs = i % 6 == 0 ? 3 : -1;
    sampling.seed = 1000 + static_cast<uint64_t>(i);
    samplings.push_back(sampling);
  }
  PlanDriver crowd(*engine);
  for (size_t i = 0; i < prompts.size(); ++i) crowd.Add(prompts[i], 24, samplings[i]);
  ASSERT_TRUE(crowd.RunAll(13).ok());
  options.num_threads = 2;
  const auto other_engine = Load(options);
  ASSERT_NE(other_engine, nullptr);
  PlanDriver alone(*other_engine);
  for (size_t i = 0; i < prompts.size(); ++i) {
    const int handle = alone.Add(prompts[i], 24, samplings[i]);
    ASSERT_TRUE(alone.RunAll(256).ok());
    const auto& expected = alone.sequence(handle);
    const auto& got = crowd.sequence(static_cast<int>(i));
    EXPECT_EQ(got.output, expected.output) << "sequence " << i;
    for (size_t k = 0; k < expected.sampled.size(); ++k) {
      ASSERT_EQ(got.sampled[k].logprobs == nullptr, expected.sampled[k].logprobs == nullptr);
      if (got.sampled[k].logprobs == nullptr) continue;
      EXPECT_EQ(got.sampled[k].logprobs->chosen, expected.sampled[k].logprobs->chosen);
      EXPECT_EQ(got.sampled[k].logprobs->top, expected.sampled[k].logprobs->top);
    }
  }
}

class TinyLlamaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    config_ = testing::TinyConfig("llama");
    tensors_ = testing::RandomTensors(config_, 2);
    Reload();
  }
  void Reload() {
    testing::WriteModel(dir_.path(), config_, tensors_);
    engine_ = Load(SmallOptions(dir_.path()));
    ASSERT_NE(engine_, nullptr);
  }
  testing::TempDir dir_;
  json config_;
  std::vector<testing::NamedTensor> tensors_;
  std::unique_ptr<ModelExecutor> engine_;
};

TEST_F(TinyLlamaTest, StaleBytesOfFreedBlocksNeverMatter) {
  RandomStream random(4);
  const auto prompt = RandomPrompt(random, 37, 150);
  const auto run = [&] {
    PlanDriver driver(*engine_);
    driver.Add(prompt, 30, Greedy());
    EXPECT_TRUE(driver.RunAll(256).ok());
    const auto output = driver.sequence(0).output;
    driver.Release(0);
    EXPECT_TRUE(driver.Step({}).ok());
    return output;
  };
  const auto clean = run();
  std::memset(engine_->pool().block(BlockId{0}), 0xff,  // NaN in every float type
              static_cast<size_t>(engine_->pool().block_bytes() * engine_->pool().num_blocks()));
  EXPECT_EQ(run(), clean);
}

TEST_F(TinyLlamaTest, BlockCopiesCarryAllLayers) {
  RandomStream random(14);
  const auto prompt = RandomPrompt(random, 16, 150);
  PlanDriver driver(*engine_);
  const int first = driver.Add(prompt, 20, Greedy());
  ASSERT_TRUE(driver.RunAll(256).ok());
  // A second sequence whose first block is a copy instead of a prefill.
  const int second = driver.Add(prompt, 20, Greedy());
  auto& copy = driver.sequence(second);
  copy.blocks.push_back(driver.TakeBlock());
  driver.CopyNext(driver.sequence(first).blocks[0], copy.blocks[0]);
  copy.computed = 15;  // the last token is computed to be sampled from
  ASSERT_TRUE(driver.RunAll(256).ok());
  EXPECT_EQ(driver.sequence(second).output, driver.sequence(first).output);
}

TEST_F(TinyLlamaTest, NanWeightsEndTheSequencesOfThatRowAlone) {
  for (auto& tensor : tensors_) {
    if (tensor.name == "model.embed_tokens.weight") tensor.values[7 * 48] = std::nanf("");
  }
  Reload();
  PlanDriver driver(*engine_);
  const int broken = driver.Add({7, 8}, 5, Greedy());
  const int fine = driver.Add({9, 8, 1}, 5, Greedy());
  Sampling scoring = Greedy();
  scoring.num_prompt_logprobs = 1;
  const int broken_row = driver.Add({1, 7, 8, 9}, 5, scoring);
  ASSERT_TRUE(driver.Step({{broken_row, 2}}).ok());  // no sample, but one row to score
  EXPECT_TRUE(driver.sequence(broken_row).failed);
  ASSERT_TRUE(driver.RunAll(256).ok());
  EXPECT_TRUE(driver.sequence(broken).failed);
  EXPECT_FALSE(driver.sequence(fine).failed);
  EXPECT_EQ(driver.sequence(fine).output, ReferenceModel(dir_.path()).Greedy({9, 8, 1}, 5));
  // The blocks of the broken one go to another sequence without harm.
  driver.Release(broken);
  const int next = driver.Add({3, 4}, 5, Greedy());
  ASSERT_TRUE(driver.RunAll(256).ok());
  EXPECT_EQ(driver.sequence(next).output, ReferenceModel(dir_.path()).Greedy({3, 4}, 5));
}

TEST_F(TinyLlamaTest, WeightsThatCannotBePackedAreRefusedByName) {
  for (auto& tensor : tensors_) {
    if (tensor.name == "model.layers.1.mlp.down_proj.weight") tensor.values.back() = INFINITY;
  }
  for (const DType stored : {DType::kF16, DType::kF32}) {
    testing::WriteModel(dir_.path(), config_, tensors_, stored);
    EngineOptions options = SmallOptions(dir_.path());
    options.int8_weights = stored == DType::kF32;
    const auto engine = LoadCpuEngine(options);
    EXPECT_EQ(engine.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(engine.status().message(),
              absl::StrCat("tensor 'model.layers.1.mlp.down_proj.weight': cannot be packed from ",
                           stored == DType::kF16 ? "f16 as f16" : "f32 as i8",
                           ": it has a value that is infinite or NaN"));
  }
}

TEST_F(TinyLlamaTest, StopIdsAreMaskedUntilMinTokens) {
  PlanDriver free(*engine_);
  free.Add({5, 6, 7}, 12, Greedy());
  ASSERT_TRUE(free.RunAll(256).ok());
  const TokenId third = free.sequence(0).output[2];
  StopRules stop;
  stop.stop_ids = {third};
  stop.min_tokens = 8;
  PlanDriver driver(*engine_);
  driver.Add({5, 6, 7}, 12, Greedy(), stop);
  ASSERT_TRUE(driver.RunAll(256).ok());
  const auto& output = driver.sequence(0).output;
  EXPECT_EQ(std::count(output.begin(), output.begin() + 8, third), 0);
}

// Penalties and bias as the reference's own arithmetic would apply them to its logits.
TEST_F(TinyLlamaTest, PenaltiesAndBiasFollowTheirDefinition) {
  Sampling sampling = Greedy();
  sampling.presence_penalty = 0.7f;
  sampling.frequency_penalty = 0.4f;
  sampling.repetition_penalty = 1.5f;
  sampling.logit_bias = {{3, 2.0f}, {9, -5.0f}};
  const std::vector<TokenId> prompt = {5, 6, 7, 7, 100, 3};
  PlanDriver driver(*engine_);
  driver.Add(prompt, 60, sampling);
  ASSERT_TRUE(driver.RunAll(256).ok());

  const ReferenceModel reference(dir_.path());
  ReferenceModel::Run run(reference);
  std::vector<double> logits;
  for (const TokenId id : prompt) logits = run.Feed(id);
  std::vector<TokenId> expected;
  for (int i = 0; i < 60; ++i) {
    for (TokenId id = 0; id < 150; ++id) {
      const auto in_output = static_cast<double>(std::count(expected.begin(), expected.end(), id));
      double& logit = logits[static_cast<size_t>(id)];
      if (in_output > 0 || std::count(prompt.begin(), prompt.end(), id) > 0)
        logit = logit > 0 ? logit / 1.5 : logit * 1.5;
      if (in_output > 0) logit -= 0.7 + 0.4 * in_output;
      if (id == 3) logit += 2;
      if (id == 9) logit -= 5;
    }
    expected.push_back(static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    logits = run.Feed(expected.back());
  }
  EXPECT_EQ(driver.sequence(0).output, expected);
}

// A sequence taken over from another worker: emitted ids count as output for penalties, min_tokens and seeds.
TEST_F(TinyLlamaTest, EmittedTokensOfAnEarlierAttemptContinueTheSameSequence) {
  Sampling sampling;
  sampling.seed = 77;
  sampling.frequency_penalty = 0.3f;
  PlanDriver whole(*engine_);
  whole.Add({1, 2, 3}, 30, sampling);
  ASSERT_TRUE(whole.RunAll(256).ok());
  const auto& output = whole.sequence(0).output;

  PlanDriver rest(*engine_);
  std::vector<TokenId> given = {1, 2, 3};
  given.insert(given.end(), output.begin(), output.begin() + 11);
  rest.Add(given, 30, sampling, {}, 11);
  ASSERT_TRUE(rest.RunAll(256).ok());
  EXPECT_EQ(rest.sequence(0).output, std::vector<TokenId>(output.begin() + 11, output.end()));
}

// As many as an engine takes, all in every step, half of them sampling: each as if it were alone.
TEST_F(TinyLlamaTest, FiveHundredAndTwelveSequencesAtOnceEqualThemselvesAlone) {
  constexpr int kLive = 512, kTokens = 12;
  EngineOptions options = SmallOptions(dir_.path());
  options.max_num_seqs = kLive;
  options.max_step_tokens = 2 * kLive;
  const auto engine = Load(options);
  ASSERT_NE(engine, nullptr);
  PlanDriver crowd(*engine), alone(*engine_);
  RandomStream random(31);
  std::vector<std::pair<int, int32_t>> work;
  std::vector<std::vector<TokenId>> expected;
  for (int i = 0; i < kLive; ++i) {
    const auto prompt = RandomPrompt(random, 1 + i % 12, 150);
    Sampling sampling = Greedy();
    if (i % 2 == 1) sampling.temperature = 1;
    sampling.seed = static_cast<uint64_t>(i);
    work.emplace_back(crowd.Add(prompt, kTokens, sampling), 2);
    const int handle = alone.Add(prompt, kTokens, sampling);
    ASSERT_TRUE(alone.RunAll(256).ok());
    expected.push_back(alone.sequence(handle).output);
    alone.Release(handle);
  }
  for (int full_steps = 0; !work.empty(); ++full_steps) {
    ASSERT_TRUE(work.size() == kLive || full_steps >= kTokens) << full_steps;
    ASSERT_TRUE(crowd.Step(work).ok());
    std::erase_if(work, [&](const auto& entry) { return crowd.sequence(entry.first).done(); });
  }
  for (int i = 0; i < kLive; ++i) {
    EXPECT_EQ(crowd.sequence(i).output, expected[static_cast<size_t>(i)]) << "sequence " << i;
  }
}

TEST_F(TinyLlamaTest, PromptLogprobsEqualTheReferenceAtEveryPosition) {
  RandomStream random(17);
  Sampling sampling = Greedy();
  sampling.num_prompt_logprobs = 5;
  PlanDriver driver(*engine_);
  for (const int length : {1, 2, 3, 90}) driver.Add(RandomPrompt(random, length, 150), 3, sampling);
  sampling.num_prompt_logprobs = 0;
  driver.Add(RandomPrompt(random, 20, 150), 3, sampling);
  sampling.num_prompt_logprobs = 1000;
  driver.Add(RandomPrompt(random, 10, 150), 3, sampling);
  ASSERT_TRUE(driver.RunAll(13).ok());
  const ReferenceModel reference(dir_.path());
  for (int handle = 0; handle < 6; ++handle) {
    const auto& sequence = driver.sequence(handle);
    const std::vector<TokenId>& prompt = *sequence.submit->tokens;
    const std::vector<double> logits = reference.AllLogits(prompt);
    const PromptLogprobs& scored = sequence.scored;
    const auto wanted = static_cast<size_t>(sequence.submit->sampling.num_prompt_logprobs);
    ASSERT_EQ(scored.chosen.size(), prompt.size() - 1);
    if (prompt.size() > 1) {
      ASSERT_EQ(static_cast<size_t>(scored.num_top), std::min<size_t>(wanted, 150));
    }
    for (size_t i = 0; i + 1 < prompt.size(); ++i) {
      std::vector<double> row(logits.begin() + static_cast<ptrdiff_t>(i * 150),
                              logits.begin() + static_cast<ptrdiff_t>((i + 1) * 150));
      double sum = 0;
      for (const double x : row) sum += std::exp(x);
      for (double& x : row) x -= std::log(sum);
      EXPECT_NEAR(scored.chosen[i], row[static_cast<size_t>(prompt[i + 1])], 2e-5) << "position " << i + 1;
      std::vector<double> sorted = row;
      std::sort(sorted.rbegin(), sorted.rend());
      for (size_t k = 0; k < static_cast<size_t>(scored.num_top); ++k) {
        const auto& [id, logprob] = scored.top[i * static_cast<size_t>(scored.num_top) + k];
        EXPECT_NEAR(logprob, sorted[k], 2e-5) << "position " << i + 1 << " rank " << k;
        EXPECT_NEAR(logprob, row[static_cast<size_t>(id)], 2e-5) << "position " << i + 1 << " rank " << k;
      }
    }
  }
}

TEST_F(TinyLlamaTest, PlansBeyondTheContextAreErrors) {
  EngineOptions options = SmallOptions(dir_.path());
  options.max_context = 8;
  const auto engine = Load(options);
  ASSERT_NE(engine, nullptr);
  PlanDriver driver(*engine);
  const int handle = driver.Add({1, 2, 3, 4, 5}, 10, Greedy());
  const absl::Status status = driver.RunAll(8);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_NE(status.message().find("slice 0 reaches beyond 8 tokens"), std::string::npos) << status;
  EXPECT_EQ(driver.sequence(handle).output.size(), 4u) << "the last one is behind the eighth token";
}

TEST_F(TinyLlamaTest, BrokenPlansAreErrorsAndTheNextStepWorks) {
  PlanDriver driver(*engine_);
  const int handle = driver.Add({1, 2, 3}, 6, Greedy());
  ASSERT_TRUE(driver.Step({{handle, 3}}).ok());
  const StepPlan good = driver.plan();
  const auto expect_internal = [&](const std::function<void(StepPlan&)>& change, const char* what) {
    StepPlan plan = good;
    plan.admitted.clear();
    plan.slices[0].begin = 3;
    plan.slices[0].count = 1;
    plan.slices[0].output_index = 1;
    change(plan);
    EXPECT_EQ(engine_->Launch(plan).code(), absl::StatusCode::kInternal) << what;
  };
  expect_internal([](StepPlan& p) { p.slices[0].slot = 64; }, "slot out of range");
  expect_internal([](StepPlan& p) { p.slices[0].sequence = SequenceId{99}; }, "another sequence");
  expect_internal([](StepPlan& p) { p.slices[0].count = 2; }, "past the known tokens");
  expect_internal([](StepPlan& p) { p.slices[0].begin = -1; }, "negative position");
  expect_internal([](StepPlan& p) { p.slices[0].begin = 2; }, "samples early");
  expect_internal([](StepPlan& p) { p.slices[0].output_index = 7; }, "wrong output index");
  expect_internal([](StepPlan& p) { p.slices[0].num_scored = 1; }, "scores what nobody asked for");
  expect_internal([](StepPlan& p) { p.blocks[0] = BlockId{1 << 20}; }, "block out of range");
  expect_internal([](StepPlan& p) { p.block_begin[1] = 0; }, "no block table");
  expect_internal([](StepPlan& p) { p.block_begin.pop_back(); }, "short block_begin");
  expect_internal([](StepPlan& p) { p.num_tokens = 1 << 20; }, "too many tokens");
  expect_internal([](StepPlan& p) { p.released_slots = {1000}; }, "released slot");
  expect_internal([](StepPlan& p) { p.copies = {{BlockId{0}, BlockId{-1}}}; }, "copy out of range");
  expect_internal([](StepPlan& p) { p.admitted = {{SequenceId{5}, 3, nullptr}}; }, "no submit");
  expect_internal(
      [](StepPlan& p) {
        auto submit = std::make_shared<Submit>();
        submit->tokens = std::make_shared<const std::vector<TokenId>>(std::vector<TokenId>{150});
        p.admitted = {{SequenceId{5}, 3, submit}};
      },
      "token out of range");
  expect_internal([](StepPlan& p) { p.expert_moves.resize(1); }, "expert moves");
  StepResult result;
  EXPECT_EQ(engine_->Wait(StepId{12345}, &result).code(), absl::StatusCode::kInternal);
  ASSERT_TRUE(driver.RunAll(256).ok());
  EXPECT_EQ(driver.sequence(handle).output, ReferenceModel(dir_.path()).Greedy({1, 2, 3}, 6));
}

}  // namespace
}  // namespace orrery
