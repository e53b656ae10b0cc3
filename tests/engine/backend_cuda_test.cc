// The executor over the CUDA backend, end to end, on the emulated device and, in a build for it, on the
// machine's: logits against the double-precision reference, greedy tokens against the CPU's, the promise of
// --batch-invariant.
#include "engine/backend_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/cpu_engine.h"
#include "engine/cuda_engine.h"
#include "scheduler/base/random.h"
#include "tests/engine/plan_driver.h"
#include "tests/engine/prefix_logits.h"
#include "tests/engine/reference_model.h"
#include "tests/engine/test_model.h"
#include "tests/engine/tested_cuda.h"

namespace orrery {
namespace {

using nlohmann::json;
using testing::Greedy;
using testing::PlanDriver;
using testing::PrefixLogits;
using testing::ReferenceModel;
using testing::RelativeError;
using testing::ToHost;

constexpr int kVocab = 150;

EngineOptions TinyOptions(const std::string& dir, bool batch_invariant) {
  EngineOptions options;
  options.model_dir = dir;
  options.num_threads = 1;
  options.kv_cache_tokens = 4096;
  options.max_num_seqs = 48;
  options.max_step_tokens = 128;
  options.max_context = 256;
  options.batch_invariant = batch_invariant;
  return options;
}

std::unique_ptr<ModelExecutor> LoadOnDevice(const EngineOptions& options) {
  auto engines = LoadCudaEngines(options, testing::OpenTestedCuda);
  EXPECT_TRUE(engines.ok()) << engines.status();
  return engines.ok() ? std::move(engines->executors.front()) : nullptr;
}

std::vector<TokenId> RandomTokens(RandomStream& random, int length) {
  std::vector<TokenId> tokens(static_cast<size_t>(length));
  for (TokenId& id : tokens) id = static_cast<TokenId>(random.Below(kVocab));
  return tokens;
}

// Two layers in the two shapes that attention has code for.
json TwoLayers(const std::string& family) {
  json config = testing::TinyConfig(family);
  config["hidden_size"] = 64;
  config["intermediate_size"] = 96;
  config["num_hidden_layers"] = 2;
  config["vocab_size"] = kVocab;
  const bool wide = family == "qwen3";
  config["head_dim"] = wide ? 128 : 64;
  config["num_attention_heads"] = wide ? 3 : 4;
  config["num_key_value_heads"] = wide ? 1 : 2;
  config["tie_word_embeddings"] = wide;
  return config;
}

// By its definition: eight steps between powers of two, of 2^-6 at least; up to 448.
double NearestE4M3(double x) {
  const double magnitude = std::max(std::abs(x), 0x1p-6);
  const double step = std::exp2(std::floor(std::log2(magnitude)) - 3);
  return std::clamp(std::nearbyint(x / step) * step, -448.0, 448.0);
}

struct CudaCase {
  std::string family;
  bool batch_invariant;
  DType stored;
};

class CudaModelTest : public ::testing::TestWithParam<CudaCase> {
 protected:
  void SetUp() override {
    if (const std::string why = testing::WhyNoCuda(); !why.empty()) GTEST_SKIP() << why;
    config_ = TwoLayers(GetParam().family);
    tensors_ = testing::RandomTensors(config_, 11);
    testing::WriteModel(dir_.path(), config_, tensors_, GetParam().stored);
    options_ = TinyOptions(dir_.path(), GetParam().batch_invariant);
  }
  // The same checkpoint on the CPU, in the types of the device.
  std::unique_ptr<ModelExecutor> LoadOnCpu() {
    EngineOptions options = options_;
    if (GetParam().stored != DType::kF16) options.dtype = DType::kBF16;
    options.kv_dtype = DType::kBF16;
    auto engine = LoadCpuEngine(options);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return engine.ok() ? *std::move(engine) : nullptr;
  }

  testing::TempDir dir_;
  json config_;
  std::vector<testing::NamedTensor> tensors_;
  EngineOptions options_;
};

INSTANTIATE_TEST_SUITE_P(
    All, CudaModelTest,
    ::testing::Values(CudaCase{"llama", false, DType::kBF16}, CudaCase{"llama", true, DType::kF32},
                      CudaCase{"qwen3", false, DType::kF16}, CudaCase{"qwen3", true, DType::kBF16},
                      CudaCase{"llama", true, DType::kF16}),
    [](const auto& info) {
      return absl::StrCat(info.param.family, info.param.batch_invariant ? "Invariant" : "Fast",
                          std::string(NameOf(info.param.stored)));
    });

TEST_P(CudaModelTest, LogitsAreNearTheReference) {
  const auto engine = LoadOnDevice(options_);
  ASSERT_NE(engine, nullptr);
  RandomStream random(3);
  const std::vector<TokenId> tokens = RandomTokens(random, 24);
  const std::vector<float> ours = PrefixLogits(*engine, tokens, 33, ToHost);
  const std::vector<double> reference = ReferenceModel(dir_.path()).AllLogits(tokens);
  const double relative = RelativeError(ours, reference);
  RecordProperty("relative_error", absl::StrCat(relative));
  EXPECT_LT(relative, 2e-2);  // as on the CPU
  if (GetParam().stored != DType::kF16) return;
  // What is left is the rounding of queries, keys, values and softmax weights to bf16.
  const auto cpu = LoadOnCpu();
  ASSERT_NE(cpu, nullptr);
  const std::vector<float> theirs = PrefixLogits(*cpu, tokens, 33, [](const Tensor& logits) {
    const auto* const first = static_cast<const float*>(logits.data);
    return std::vector<float>(first, first + logits.rows * logits.cols);
  });
  options_.dtype = DType::kBF16;
  const auto rounded = LoadOnDevice(options_);
  ASSERT_NE(rounded, nullptr);
  const std::vector<float> narrow = PrefixLogits(*rounded, tokens, 33, ToHost);
  RecordProperty("relative_error_in_bf16", absl::StrCat(RelativeError(narrow, reference)));
  RecordProperty("difference_from_cpu", absl::StrCat(RelativeError(ours, theirs)));
  EXPECT_LT(relative, 0.5 * RelativeError(narrow, reference));
  EXPECT_LT(RelativeError(ours, theirs), 5e-3);
  EXPECT_GT(RelativeError(narrow, theirs), 8e-3);
}

// The same with keys and values of three bits of mantissa, in pages of half the bytes.
TEST_P(CudaModelTest, LogitsOfAnFp8PoolAreNearTheReference) {
  const auto plan = PlanCudaEngine(options_, testing::OpenTestedCuda);
  options_.kv_dtype = DType::kE4M3;
  const auto narrow_plan = PlanCudaEngine(options_, testing::OpenTestedCuda);
  ASSERT_TRUE(plan.ok() && narrow_plan.ok());
  EXPECT_EQ(narrow_plan->kv_dtype, DType::kE4M3);
  EXPECT_EQ(narrow_plan->memory.kv_block_bytes * 2, plan->memory.kv_block_bytes);
  const auto engine = LoadOnDevice(options_);
  ASSERT_NE(engine, nullptr);
  RandomStream random(3);
  const std::vector<TokenId> tokens = RandomTokens(random, 24);
  const std::vector<float> ours = PrefixLogits(*engine, tokens, 33, ToHost);
  ReferenceModel reference(dir_.path());
  const double of_the_type = RelativeError(ours, reference.AllLogits(tokens));
  reference.set_kept(NearestE4M3);
  const double relative = RelativeError(ours, reference.AllLogits(tokens));
  RecordProperty("relative_error", absl::StrCat(relative));
  RecordProperty("relative_error_of_the_type", absl::StrCat(of_the_type));
  // bf16's, and elements that it moves over the middle of two neighbours; the rest is where the reference has
  // it.
  EXPECT_LT(relative, 4e-2);
  EXPECT_LT(relative, 0.7 * of_the_type);
}

// Ragged prompts in chunks beside decodes, more rows than the skinny product takes and fewer, one that is
// preempted and recomputed. A sequence is followed up to where the CPU's two best are nearer than rounding.
TEST_P(CudaModelTest, GreedyTokensEqualTheCpus) {
  constexpr double kRounding = 0.1;  // of a difference of logits: a per cent of their norm
  const std::vector<int> lengths = {1, 15, 16, 17, 33, 64, 90, 3, 7, 100};
  const auto device = LoadOnDevice(options_), cpu = LoadOnCpu();
  ASSERT_NE(device, nullptr);
  ASSERT_NE(cpu, nullptr);
  const auto run = [&](ModelExecutor& engine) {
    PlanDriver driver(engine);
    RandomStream random(5);
    Sampling sampling = Greedy();
    sampling.num_logprobs = 2;
    for (const int length : lengths) driver.Add(RandomTokens(random, length), 4 + length % 5, sampling);
    EXPECT_TRUE(driver.Step({{0, 1}, {4, 33}, {6, 20}, {9, 65}}).ok());
    EXPECT_TRUE(driver.Step({{0, 1}, {4, 1}, {6, 70}}).ok());
    driver.Preempt(4);
    EXPECT_TRUE(driver.RunAll(19).ok());
    std::vector<PlanDriver::Sequence> sequences;
    for (size_t i = 0; i < lengths.size(); ++i) sequences.push_back(driver.sequence(static_cast<int>(i)));
    return sequences;
  };
  const auto ours = run(*device), expected = run(*cpu);
  int followed = 0, near_ties = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    ASSERT_EQ(ours[i].output.size(), expected[i].output.size());
    for (size_t t = 0; t < ours[i].output.size(); ++t) {
      const auto& top = expected[i].sampled[t].logprobs->top;
      if (ours[i].output[t] != expected[i].output[t]) {
        EXPECT_EQ(ours[i].output[t], top[1].first) << "sequence " << i << " token " << t;
        EXPECT_LT(top[0].second - top[1].second, kRounding) << "sequence " << i << " token " << t;
        ++near_ties;
        break;
      }
      ++followed;
    }
  }
  EXPECT_GE(followed, 45);  // of 59
  EXPECT_LE(near_ties, 2);
}

// A trained model is sure of most of its tokens.
TEST(CudaDemoModelTest, SaysWhatItSaysOnTheCpu) {
  if (const std::string why = testing::WhyNoCuda(); !why.empty()) GTEST_SKIP() << why;
  const std::string dir = testing::SourcePath("deploy/models/demo");
  if (dir.empty()) GTEST_SKIP() << "ORRERY_SOURCE_DIR is not set";
  EngineOptions options = TinyOptions(dir, /*batch_invariant=*/false);
  const auto device = LoadOnDevice(options);
  options.dtype = options.kv_dtype = DType::kBF16;
  const auto cpu = LoadCpuEngine(options);
  ASSERT_NE(device, nullptr);
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  const auto run = [](ModelExecutor& engine) {
    PlanDriver driver(engine);
    std::vector<TokenId> prompt(20);
    std::iota(prompt.begin(), prompt.end(), 300);
    driver.Add(prompt, 12, Greedy());
    EXPECT_TRUE(driver.RunAll(128).ok());
    return driver.sequence(0).output;
  };
  EXPECT_EQ(run(*device), run(**cpu));
}

// What the rules and their definition make of the very logits that were sampled from, for several sequences
// with rules of their own side by side.
TEST_P(CudaModelTest, RulesAndLogprobsFollowTheirDefinition) {
  constexpr size_t kTokens = 9, kMinTokens = 6;
  const auto engine = LoadOnDevice(options_);
  ASSERT_NE(engine, nullptr);
  struct Ruled {
    std::vector<TokenId> prompt;
    Sampling sampling = Greedy();
    StopRules stop;
  };
  std::vector<Ruled> ruled(3);
  for (int i = 0; i < 3; ++i) {
    Ruled& r = ruled[static_cast<size_t>(i)];
    r.prompt = {5 + i, 6, 7, 7, 100, 3};
    r.sampling.presence_penalty = 0.7f * static_cast<float>(i);
    r.sampling.frequency_penalty = 0.4f;
    r.sampling.repetition_penalty = 1.0f + 0.5f * static_cast<float>(i);
    r.sampling.logit_bias = {{3 + i, 2.0f}, {9, -5.0f}};
    if (i == 1) r.sampling.logit_bias.push_back({20, 1.5f});
    r.sampling.num_logprobs = 2 + i;
    // Ids that it would come to.
    PlanDriver free(*engine);
    free.Add(r.prompt, 3, r.sampling);
    ASSERT_TRUE(free.RunAll(13).ok());
    r.stop.stop_ids = free.sequence(0).output;
    std::sort(r.stop.stop_ids.begin(), r.stop.stop_ids.end());
    r.stop.stop_ids.erase(std::unique(r.stop.stop_ids.begin(), r.stop.stop_ids.end()), r.stop.stop_ids.end());
    r.stop.min_tokens = static_cast<int32_t>(kMinTokens);
    free.Release(0);
    ASSERT_TRUE(free.Step({}).ok());
  }
  std::vector<std::vector<float>> steps;  // [3, vocab] each
  engine->set_logits_observer([&](const Tensor& rows) { steps.push_back(ToHost(rows)); });
  PlanDriver driver(*engine);
  for (const Ruled& r : ruled) driver.Add(r.prompt, static_cast<int32_t>(kTokens), r.sampling, r.stop);
  ASSERT_TRUE(driver.RunAll(13).ok());
  for (size_t s = 0; s < ruled.size(); ++s) {
    const Ruled& r = ruled[s];
    std::vector<TokenId> output;
    for (size_t i = 0; i < kTokens; ++i) {
      const auto row = steps[i].begin() + static_cast<ptrdiff_t>(s * kVocab);
      const std::vector<double> original(row, row + kVocab);
      std::vector<double> changed = original;
      double sum = 0;
      for (TokenId id = 0; id < kVocab; ++id) {
        double& logit = changed[static_cast<size_t>(id)];
        sum += std::exp(logit);
        const auto count = static_cast<double>(std::count(output.begin(), output.end(), id));
        const double repetition = r.sampling.repetition_penalty;
        if (count > 0 || std::count(r.prompt.begin(), r.prompt.end(), id) > 0) {
          logit = logit > 0 ? logit / repetition : logit * repetition;
        }
        if (count > 0) logit -= r.sampling.presence_penalty + r.sampling.frequency_penalty * count;
        for (const auto& [biased, value] : r.sampling.logit_bias) logit += biased == id ? value : 0.0f;
        const bool stops = std::count(r.stop.stop_ids.begin(), r.stop.stop_ids.end(), id) > 0;
        if (i < kMinTokens && stops) logit = -1e9;
      }
      const auto& sampled = driver.sequence(static_cast<int>(s)).sampled[i];
      const auto best = std::max_element(changed.begin(), changed.end()) - changed.begin();
      ASSERT_EQ(sampled.token, static_cast<TokenId>(best)) << "sequence " << s << " token " << i;
      output.push_back(sampled.token);
      ASSERT_NE(sampled.logprobs, nullptr);
      EXPECT_NEAR(sampled.logprobs->chosen, original[static_cast<size_t>(best)] - std::log(sum), 1e-4);
      std::vector<double> sorted = original;
      std::sort(sorted.rbegin(), sorted.rend());
      ASSERT_EQ(sampled.logprobs->top.size(), 2 + s);
      for (size_t k = 0; k < 2 + s; ++k) {
        EXPECT_NEAR(sampled.logprobs->top[k].second, sorted[k] - std::log(sum), 1e-4) << "rank " << k;
      }
    }
  }
}

TEST_P(CudaModelTest, PromptLogprobsAreNearTheReference) {
  const auto engine = LoadOnDevice(options_);
  ASSERT_NE(engine, nullptr);
  RandomStream random(8);
  const std::vector<TokenId> prompt = RandomTokens(random, 30);
  Sampling scoring = Greedy();
  scoring.num_prompt_logprobs = 3;
  PlanDriver driver(*engine);
  driver.Add(prompt, 2, scoring);
  ASSERT_TRUE(driver.RunAll(13).ok());
  const PromptLogprobs& scored = driver.sequence(0).scored;
  const std::vector<double> logits = ReferenceModel(dir_.path()).AllLogits(prompt);
  ASSERT_EQ(scored.chosen.size(), 29u);
  for (size_t i = 0; i < scored.chosen.size(); ++i) {
    const auto row = logits.begin() + static_cast<ptrdiff_t>(i * kVocab);
    double sum = 0;
    for (auto x = row; x != row + kVocab; ++x) sum += std::exp(*x);
    EXPECT_NEAR(scored.chosen[i], row[prompt[i + 1]] - std::log(sum), 0.15) << "position " << i + 1;
    EXPECT_NEAR(scored.top[3 * i].second, *std::max_element(row, row + kVocab) - std::log(sum), 0.15)
        << "position " << i + 1;
  }
}

class CudaTinyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = testing::WhyNoCuda(); !why.empty()) GTEST_SKIP() << why;
    config_ = TwoLayers("llama");
    tensors_ = testing::RandomTensors(config_, 2);
    testing::WriteModel(dir_.path(), config_, tensors_, DType::kBF16);
  }
  std::unique_ptr<ModelExecutor> Load(bool batch_invariant = false) {
    return LoadOnDevice(TinyOptions(dir_.path(), batch_invariant));
  }
  std::vector<TokenId> Alone(ModelExecutor& engine, const std::vector<TokenId>& prompt, int32_t count) {
    PlanDriver driver(engine);
    const int handle = driver.Add(prompt, count, Greedy());
    EXPECT_TRUE(driver.RunAll(128).ok());
    const auto output = driver.sequence(handle).output;
    driver.Release(handle);
    EXPECT_TRUE(driver.Step({}).ok());
    return output;
  }
  absl::Status StatusOf(const std::function<void(EngineOptions&)>& change) {
    EngineOptions options = TinyOptions(dir_.path(), false);
    change(options);
    return LoadCudaEngines(options, testing::OpenTestedCuda).status();
  }

  testing::TempDir dir_;
  json config_;
  std::vector<testing::NamedTensor> tensors_;
};

// Alone, in a batch, in chunks, token by token: prefill and decode, few rows and many.
TEST_F(CudaTinyTest, InvariantLogitsAreBitwiseTheSameHoweverTheyAreComputed) {
  const auto engine = Load(/*batch_invariant=*/true);
  ASSERT_NE(engine, nullptr);
  RandomStream random(9);
  const std::vector<TokenId> tokens = RandomTokens(random, 18);
  const std::vector<float> whole = PrefixLogits(*engine, tokens, 128, ToHost);
  EXPECT_EQ(whole, PrefixLogits(*engine, tokens, 1, ToHost)) << "token by token";
  EXPECT_EQ(whole, PrefixLogits(*engine, tokens, 7, ToHost)) << "in chunks";
  std::vector<float> last;
  engine->set_logits_observer([&](const Tensor& logits) { last = ToHost(logits); });
  for (const size_t n : {size_t{1}, size_t{16}, size_t{17}, tokens.size()}) {
    Alone(*engine, {tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(n)}, 1);
    const auto row = whole.begin() + static_cast<ptrdiff_t>((n - 1) * kVocab);
    EXPECT_EQ(last, std::vector<float>(row, row + kVocab)) << n << " tokens alone";
  }
  // Across tiles of attention: the sixth token's logits, decoded behind a prompt and as part of it.
  std::vector<TokenId> prompt = RandomTokens(random, 126);
  const auto output = Alone(*engine, prompt, 6);
  const std::vector<float> decoded = last;
  prompt.insert(prompt.end(), output.begin(), output.begin() + 5);
  for (const int32_t chunk : {61, 128}) {
    PlanDriver driver(*engine);
    const int handle = driver.Add(prompt, 1, Greedy());
    ASSERT_TRUE(driver.RunAll(chunk).ok());
    EXPECT_EQ(last, decoded) << "in chunks of " << chunk;
    driver.Release(handle);
    ASSERT_TRUE(driver.Step({}).ok());
  }
}

TEST_F(CudaTinyTest, DrawsDependOnSeedAndTokensAlone) {
  const auto engine = Load(/*batch_invariant=*/true);
  ASSERT_NE(engine, nullptr);
  RandomStream random(21);
  PlanDriver crowd(*engine), alone(*engine);
  std::vector<std::vector<TokenId>> expected;
  for (int i = 0; i < 10; ++i) {
    Sampling sampling;
    sampling.temperature = 0.5f + 0.1f * static_cast<float>(i);
    sampling.top_k = i % 3 == 0 ? 20 : 0;
    sampling.top_p = i % 2 == 0 ? 0.8f : 1.0f;
    sampling.seed = 1000 + static_cast<uint64_t>(i);
    const auto prompt = RandomTokens(random, 1 + 4 * i);
    const int handle = alone.Add(prompt, 5, sampling);
    ASSERT_TRUE(alone.RunAll(128).ok());
    expected.push_back(alone.sequence(handle).output);
    alone.Release(handle);
    crowd.Add(prompt, 5, sampling);
  }
  ASSERT_TRUE(alone.Step({}).ok());
  ASSERT_TRUE(crowd.RunAll(13).ok());
  for (int i = 0; i < 10; ++i) EXPECT_EQ(crowd.sequence(i).output, expected[static_cast<size_t>(i)]) << i;
  for (int i = 0; i < 10; ++i) crowd.Release(i);
  ASSERT_TRUE(crowd.Step({}).ok());
  // From one distribution, many different draws: by seed, and by the token's number.
  std::set<std::vector<TokenId>> outputs;
  Sampling flat;
  flat.temperature = 5.0f;
  for (flat.seed = 0; flat.seed < 6; ++flat.seed) {
    const int handle = alone.Add({1, 2, 3}, 4, flat);
    ASSERT_TRUE(alone.RunAll(128).ok());
    const auto& output = alone.sequence(handle).output;
    EXPECT_GE(std::set(output.begin(), output.end()).size(), 2u);
    outputs.insert(output);
    alone.Release(handle);
    ASSERT_TRUE(alone.Step({}).ok());
  }
  EXPECT_EQ(outputs.size(), 6u);
}

TEST_F(CudaTinyTest, SequencesContinueBehindSharedAndCopiedBlocks) {
  const auto engine = Load(/*batch_invariant=*/true);
  ASSERT_NE(engine, nullptr);
  RandomStream random(14);
  const auto prompt = RandomTokens(random, 40);
  const auto expected = Alone(*engine, prompt, 6);
  PlanDriver driver(*engine);
  const int first = driver.Add(prompt, 6, Greedy());
  ASSERT_TRUE(driver.RunAll(128).ok());
  const int shared = driver.Add(prompt, 6, Greedy()), copied = driver.Add(prompt, 6, Greedy());
  for (int i = 0; i < 2; ++i) {  // the two full blocks of the prompt
    driver.sequence(shared).blocks.push_back(driver.sequence(first).blocks[static_cast<size_t>(i)]);
    driver.sequence(copied).blocks.push_back(driver.TakeBlock());
    driver.CopyNext(driver.sequence(first).blocks[static_cast<size_t>(i)],
                    driver.sequence(copied).blocks.back());
  }
  driver.sequence(shared).computed = driver.sequence(copied).computed = 32;
  ASSERT_TRUE(driver.RunAll(128).ok());
  EXPECT_EQ(driver.sequence(shared).output, expected);
  EXPECT_EQ(driver.sequence(copied).output, expected);
}

TEST_F(CudaTinyTest, WorkersShareTheWeights) {
  EngineOptions options = TinyOptions(dir_.path(), false);
  options.num_workers = 2;
  auto engines = LoadCudaEngines(options, testing::OpenTestedCuda);
  ASSERT_TRUE(engines.ok()) << engines.status();
  ASSERT_EQ(engines->executors.size(), 2u);
  const auto expected = Alone(*engines->executors[0], {4, 5, 6}, 6);
  engines->executors.erase(engines->executors.begin());
  EXPECT_EQ(Alone(*engines->executors[0], {4, 5, 6}, 6), expected);
}

TEST_F(CudaTinyTest, NanWeightsEndTheSequencesOfThatRowAlone) {
  EngineOptions options = TinyOptions(dir_.path(), false);
  for (const DType kv_dtype : {DType::kBF16, DType::kE4M3}) {
    options.kv_dtype = kv_dtype;
    testing::WriteModel(dir_.path(), config_, tensors_, DType::kBF16);
    const auto whole = LoadOnDevice(options);
    ASSERT_NE(whole, nullptr);
    const auto expected = Alone(*whole, {9, 8, 1}, 5);
    auto tensors = tensors_;
    for (auto& tensor : tensors) {
      if (tensor.name == "model.embed_tokens.weight") tensor.values[7 * 64] = std::nanf("");
    }
    testing::WriteModel(dir_.path(), config_, tensors, DType::kBF16);
    const auto engine = LoadOnDevice(options);
    ASSERT_NE(engine, nullptr);
    PlanDriver driver(*engine);
    const int broken = driver.Add({7, 8}, 5, Greedy()), fine = driver.Add({9, 8, 1}, 5, Greedy());
    ASSERT_TRUE(driver.RunAll(128).ok());
    EXPECT_TRUE(driver.sequence(broken).failed);
    EXPECT_TRUE(driver.sequence(broken).output.empty());
    EXPECT_FALSE(driver.sequence(fine).failed);
    EXPECT_EQ(driver.sequence(fine).output, expected);
    driver.Release(broken);  // its blocks, full of NaN, go to the next
    const int next = driver.Add({9, 8, 1}, 5, Greedy());
    ASSERT_TRUE(driver.RunAll(128).ok());
    EXPECT_EQ(driver.sequence(next).output, expected);
  }
}

// Rows of up to eight times a gain of 60000.
TEST_F(CudaTinyTest, WhatF16DoesNotHoldEndsTheSequence) {
  for (auto& tensor : tensors_) {
    if (tensor.name == "model.layers.1.post_attention_layernorm.weight") {
      std::fill(tensor.values.begin(), tensor.values.end(), 60000.0f);
    }
  }
  testing::WriteModel(dir_.path(), config_, tensors_, DType::kF16);
  for (const bool batch_invariant : {false, true}) {
    const auto engine = Load(batch_invariant);
    ASSERT_NE(engine, nullptr);
    PlanDriver driver(*engine);
    const int handle = driver.Add({9, 8, 1}, 5, Greedy());
    ASSERT_TRUE(driver.RunAll(128).ok());
    EXPECT_TRUE(driver.sequence(handle).failed);
    EXPECT_TRUE(driver.sequence(handle).output.empty());
  }
}

TEST_F(CudaTinyTest, RefusalsNameWhatIsNotSupported) {
  const auto message = [&](const std::function<void(EngineOptions&)>& change) {
    const absl::Status status = StatusOf(change);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_EQ(message([](auto& o) { o.dtype = DType::kF32; }),
            "--dtype f32 is not supported on CUDA: bf16 or f16");
  EXPECT_EQ(message([](auto& o) { o.dtype = DType::kF16; }),
            "--dtype f16 needs a checkpoint in f16, this one is in bf16");
  EXPECT_EQ(message([](auto& o) { o.kv_dtype = DType::kF16; }),
            "--kv-dtype f16 is not supported on CUDA: bf16 or fp8");
  EXPECT_EQ(message([](auto& o) { o.int8_weights = true; }),
            "--weights int8 is not supported on CUDA: native");
  const auto refused = [&](const char* field, int value) {
    json config = config_;
    config[field] = value;
    testing::WriteModel(dir_.path(), config, testing::RandomTensors(config, 2), DType::kBF16);
    return message([](auto&) {});
  };
  EXPECT_EQ(refused("head_dim", 80), "head_dim 80 is not supported on CUDA: 64 or 128");
  EXPECT_EQ(PlanCudaEngine(TinyOptions(dir_.path(), false), testing::OpenTestedCuda).status().message(),
            "head_dim 80 is not supported on CUDA: 64 or 128");
  EXPECT_EQ(refused("hidden_size", 52),
            "hidden_size 52 is not supported on CUDA: a multiple of 8, at most 16384");
  EXPECT_EQ(refused("intermediate_size", 77),
            "tensor 'model.layers.0.mlp.down_proj.weight': rows of 77 values: CUDA needs a multiple of 8");
}

}  // namespace
}  // namespace orrery
