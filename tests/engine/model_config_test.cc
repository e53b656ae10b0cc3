// config.json and generation_config.json: what each family means by its fields, and what is refused by name.
#include "engine/checkpoint/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/checkpoint/generation_config.h"
#include "engine/checkpoint/json.h"
#include "engine/engine_options.h"
#include "scheduler/base/random.h"
#include "tests/engine/test_model.h"

namespace orrery {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TinyConfig;

ModelConfig Parse(json config, const json& changes) {
  if (!changes.is_null()) config.update(changes);
  const auto parsed = ParseModelConfig(config, "config.json");
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.value_or(ModelConfig{});
}

TEST(ModelConfig, FamiliesDifferByTheirSwitches) {
  const ModelConfig llama = Parse(TinyConfig("llama"), {});
  EXPECT_FALSE(llama.qkv_bias || llama.o_bias || llama.mlp_bias || llama.qk_norm || llama.tie_embeddings);
  const ModelConfig biased = Parse(TinyConfig("llama"), {{"attention_bias", true}, {"mlp_bias", true}});
  EXPECT_TRUE(biased.qkv_bias && biased.o_bias && biased.mlp_bias);
  const ModelConfig qwen2 = Parse(TinyConfig("qwen2"), {});
  EXPECT_TRUE(qwen2.qkv_bias);
  EXPECT_FALSE(qwen2.o_bias || qwen2.qk_norm);
  const ModelConfig qwen3 = Parse(TinyConfig("qwen3"), {});
  EXPECT_TRUE(qwen3.qk_norm);
  EXPECT_FALSE(qwen3.qkv_bias);
  EXPECT_EQ(Parse(TinyConfig("mistral"), {}).family, ModelFamily::kMistral);
}

TEST(ModelConfig, MissingFieldsHaveTheLibrarysDefaults) {
  json config = TinyConfig("llama");
  for (const char* field :
       {"num_key_value_heads", "head_dim", "rope_theta", "max_position_embeddings", "rms_norm_eps",
        "tie_word_embeddings", "torch_dtype", "architectures", "eos_token_id"}) {
    config.erase(field);
  }
  const ModelConfig parsed = Parse(config, {});
  EXPECT_EQ(parsed.num_kv_heads, 6);
  EXPECT_EQ(parsed.head_dim, 8);
  EXPECT_EQ(parsed.rope.theta, 10000.0);
  EXPECT_EQ(parsed.max_positions, 2048);
  EXPECT_TRUE(parsed.eos_ids.empty());
}

TEST(ModelConfig, RopeIsReadFromOldAndNewPlaces) {
  EXPECT_EQ(Parse(TinyConfig("qwen3"), {{"rope_theta", 1e6}}).rope.theta, 1e6);
  json nested = TinyConfig("qwen3");
  nested.erase("rope_theta");
  nested["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  EXPECT_EQ(Parse(nested, {}).rope.theta, 5e5);
  const ModelConfig linear =
      Parse(TinyConfig("llama"), {{"rope_scaling", {{"type", "linear"}, {"factor", 4}}}});
  EXPECT_EQ(linear.rope.scaling, RopeConfig::Scaling::kLinear);
  EXPECT_EQ(linear.rope.factor, 4.0);
  const json twice = {{"rope_type", "linear"}, {"factor", 2}};
  EXPECT_EQ(Parse(TinyConfig("llama"), {{"rope_scaling", twice}, {"rope_parameters", twice}}).rope.factor,
            2.0);
  nested["rope_parameters"] = {{"rope_type", "llama3"},   {"rope_theta", 5e5},
                               {"factor", 32.0},          {"low_freq_factor", 1.0},
                               {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};
  const ModelConfig llama3 = Parse(nested, {});
  EXPECT_EQ(llama3.rope.scaling, RopeConfig::Scaling::kLlama3);
  EXPECT_EQ(llama3.rope.original_max_positions, 8192);
}

// Llama-3.2-1B: the ends of the spectrum are exact, the middle lies between.
TEST(ModelConfig, Llama3FrequenciesKeepShortWavesAndStretchLongOnes) {
  RopeConfig rope{.theta = 5e5, .scaling = RopeConfig::Scaling::kLlama3, .factor = 32.0};
  const auto scaled = RopeInverseFrequencies(rope, 64);
  rope.scaling = RopeConfig::Scaling::kNone;
  const auto plain = RopeInverseFrequencies(rope, 64);
  ASSERT_EQ(scaled.size(), 32u);
  EXPECT_EQ(scaled[0], 1.0);
  EXPECT_EQ(scaled[10], plain[10]);
  EXPECT_DOUBLE_EQ(scaled[31], plain[31] / 32.0);
  for (size_t j = 0; j < 32; ++j) {
    EXPECT_LE(scaled[j], plain[j]);
    EXPECT_GE(scaled[j], plain[j] / 32.0);
    if (j > 0) {
      EXPECT_LT(scaled[j], scaled[j - 1]);
    }
  }
}

TEST(ModelConfig, EndIdsAreAnIdOrAList) {
  EXPECT_THAT(Parse(TinyConfig("llama"), {{"eos_token_id", {9, 4, 9}}}).eos_ids, ElementsAre(4, 9));
  EXPECT_THAT(Parse(TinyConfig("llama"), {{"eos_token_id", 3}}).eos_ids, ElementsAre(3));
  EXPECT_TRUE(Parse(TinyConfig("llama"), {{"eos_token_id", nullptr}}).eos_ids.empty());
}

TEST(ModelConfig, WindowsThatNeverBindAreNoWindows) {
  Parse(TinyConfig("mistral"), {{"sliding_window", nullptr}});
  Parse(TinyConfig("mistral"), {{"sliding_window", 512}});  // the whole context
  Parse(TinyConfig("qwen2"), {{"sliding_window", 128}, {"use_sliding_window", false}});
  Parse(TinyConfig("qwen3"),
        {{"sliding_window", 128}, {"layer_types", {"full_attention", "full_attention", "full_attention"}}});
}

struct BadConfig {
  std::string name, family;
  json changes;
  std::string message;
};

void PrintTo(const BadConfig& bad, std::ostream* out) { *out << bad.name; }

std::vector<BadConfig> BadConfigs() {
  const auto scaling = [](json value) { return json{{"rope_scaling", std::move(value)}}; };
  return {
      {"OtherArchitecture",
       "llama",
       {{"architectures", {"GPT2LMHeadModel"}}, {"model_type", "gpt2"}},
       "'GPT2LMHeadModel'"},
      {"TwoArchitectures", "llama", {{"architectures", {"A", "B"}}}, "architectures"},
      {"ArchitectureAgainstType", "llama", {{"model_type", "qwen2"}}, "model_type"},
      {"OtherModelType", "llama", {{"architectures", nullptr}, {"model_type", "falcon"}}, "'falcon'"},
      {"Quantised",
       "llama",
       {{"quantization_config", {{"quant_method", "awq"}}}},
       "quantization_config (awq)"},
      {"QuantisedOddly", "llama", {{"quantization_config", 4}}, "quantization_config"},
      {"Mixtral", "llama", {{"architectures", {"MixtralForCausalLM"}}, {"model_type", "mixtral"}}, "Mixtral"},
      {"Experts", "qwen3", {{"num_experts", 64}}, "num_experts"},
      {"WindowOfMistral", "mistral", {{"sliding_window", 128}}, "sliding_window of 128"},
      {"WindowOfQwen", "qwen2", {{"sliding_window", 128}, {"use_sliding_window", true}}, "sliding_window"},
      {"WindowedLayers",
       "qwen3",
       {{"sliding_window", 64}, {"layer_types", {"full_attention", "sliding_attention", "full_attention"}}},
       "sliding_window"},
      {"LinearAttentionLayers", "qwen3", {{"layer_types", {"linear_attention"}}}, "layer_types"},
      {"Yarn", "llama", scaling({{"rope_type", "yarn"}, {"factor", 4.0}}), "'yarn'"},
      {"Dynamic", "llama", scaling({{"type", "dynamic"}, {"factor", 4.0}}), "'dynamic'"},
      {"Longrope", "llama", scaling({{"type", "longrope"}}), "'longrope'"},
      {"LinearWithoutFactor", "llama", scaling({{"type", "linear"}}), "factor is missing"},
      {"FactorOfZero", "llama", scaling({{"type", "linear"}, {"factor", 0}}), "factor"},
      {"Llama3Reversed", "llama",
       scaling(
           {{"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 4.0}, {"high_freq_factor", 1.0}}),
       "high_freq_factor"},
      {"PartialRotary", "llama", scaling({{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}),
       "partial_rotary_factor"},
      {"ScalingIsText", "llama", {{"rope_scaling", "linear"}}, "rope_scaling must be an object"},
      {"ScalingAgainstParameters",
       "llama",
       {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}}},
        {"rope_parameters", {{"rope_type", "linear"}, {"factor", 4.0}}}},
       "rope_parameters and rope_scaling differ"},
      {"NoLayers", "llama", {{"num_hidden_layers", nullptr}}, "num_hidden_layers is missing"},
      {"ZeroLayers", "llama", {{"num_hidden_layers", 0}}, "num_hidden_layers"},
      {"AbsurdLayers", "llama", {{"num_hidden_layers", 1 << 30}}, "[1, 1024]"},
      {"AbsurdHidden", "llama", {{"hidden_size", int64_t{1} << 60}}, "hidden_size"},
      {"HiddenPast63Bits", "llama", {{"hidden_size", std::numeric_limits<uint64_t>::max()}}, "hidden_size"},
      {"NegativeVocab", "llama", {{"vocab_size", -5}}, "vocab_size"},
      {"FractionVocab", "llama", {{"vocab_size", 150.5}}, "vocab_size"},
      {"TextVocab", "llama", {{"vocab_size", "150"}}, "vocab_size"},
      {"HeadsDoNotDivide", "llama", {{"num_key_value_heads", 4}}, "must divide"},
      {"OddHead", "llama", {{"head_dim", 15}}, "head_dim"},
      {"HeadOfNothing",
       "llama",
       {{"head_dim", nullptr}, {"num_attention_heads", 1024}, {"num_key_value_heads", 1}},
       "head_dim"},
      {"Gelu", "llama", {{"hidden_act", "gelu"}}, "'gelu'"},
      {"ZeroEps", "llama", {{"rms_norm_eps", 0}}, "rms_norm_eps"},
      {"ThetaIsText", "llama", {{"rope_theta", "big"}}, "rope_theta"},
      {"NegativeTheta", "llama", {{"rope_theta", -1}}, "rope_theta"},
      {"EndIdPastVocab", "llama", {{"eos_token_id", 150}}, "eos_token_id"},
      {"EndIdNegative", "llama", {{"eos_token_id", {1, -1}}}, "eos_token_id"},
      {"EndIdNested", "llama", {{"eos_token_id", {{1}}}}, "eos_token_id"},
      {"BiasIsNumber", "llama", {{"attention_bias", 1}}, "attention_bias"},
      {"MlpBiasOfQwen", "qwen2", {{"mlp_bias", true}}, "mlp_bias"},
      {"Float8", "llama", {{"torch_dtype", "float8_e4m3fn"}}, "float8"},
  };
}

class RefusedConfig : public ::testing::TestWithParam<BadConfig> {};
INSTANTIATE_TEST_SUITE_P(All, RefusedConfig, ::testing::ValuesIn(BadConfigs()),
                         [](const auto& info) { return info.param.name; });

TEST_P(RefusedConfig, NamesTheField) {
  json config = TinyConfig(GetParam().family);
  config.update(GetParam().changes);
  const auto parsed = ParseModelConfig(config, "config.json");
  ASSERT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(GetParam().message));
  EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("config.json: "));
}

TEST(ReadModelConfig, FilesThatAreNoConfigAreErrors) {
  testing::TempDir dir;
  EXPECT_EQ(ReadModelConfig(dir.path()).status().code(), absl::StatusCode::kNotFound);
  const std::string path = dir.path() + "/config.json";
  for (const std::string& text : {std::string(), std::string("{"), std::string("[1]"), std::string("{} {}"),
                                  "{\"a\":" + std::string(1000, '['), std::string(5 << 20, ' ')}) {
    testing::WriteFile(path, text);
    EXPECT_EQ(ReadModelConfig(dir.path()).status().code(), absl::StatusCode::kInvalidArgument)
        << text.substr(0, 20);
  }
}

// Any damage to a real config is an error or a config within its limits.
TEST(ReadModelConfig, MutationsNeverCrash) {
  const std::string good = TinyConfig("llama").dump();
  RandomStream random(17);
  int accepted = 0;
  for (int round = 0; round < 5000; ++round) {
    std::string text = good;
    for (uint64_t i = 0, count = 1 + random.Below(3); i < count; ++i) {
      text[random.Below(text.size())] = "0123456789[]{},:\"-eE.tfn"[random.Below(24)];
    }
    const auto object = ParseJsonObject(text, "config.json", {});
    if (!object.ok()) continue;
    const auto parsed = ParseModelConfig(*object, "config.json");
    if (!parsed.ok()) continue;
    ++accepted;
    EXPECT_GT(parsed->num_parameters(), 0);
    EXPECT_EQ(parsed->num_heads % parsed->num_kv_heads, 0);
  }
  EXPECT_GT(accepted, 0);
}

TEST(GenerationConfig, DefaultsAndEndIds) {
  const ModelConfig model = Parse(TinyConfig("llama"), {});
  const auto parse = [&](const json& file) {
    return ParseGenerationConfig(file, model, "generation_config.json");
  };
  auto config = parse(
      {{"eos_token_id", {7, 5}}, {"temperature", 0.6}, {"top_p", 0.95}, {"top_k", 20}, {"do_sample", true}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->eos_ids, ElementsAre(5, 7));
  EXPECT_FLOAT_EQ(*config->temperature, 0.6f);
  EXPECT_EQ(*config->top_k, 20);
  EXPECT_FALSE(config->min_p.has_value());
  config = parse({{"do_sample", false}, {"temperature", 0.6}});
  EXPECT_EQ(*config->temperature, 0.0f);
  EXPECT_THAT(config->eos_ids, ElementsAre(2)) << "config.json's, where the file names none";
  for (const json& bad :
       {json{{"temperature", -1}}, json{{"top_p", 1.5}}, json{{"top_k", "many"}},
        json{{"eos_token_id", 1000}}, json{{"repetition_penalty", 0}}, json{{"do_sample", 1}}}) {
    EXPECT_EQ(parse(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  testing::TempDir dir;
  EXPECT_THAT(ReadGenerationConfig(dir.path(), model)->eos_ids, ElementsAre(2)) << "without the file";
}

class PlanTest : public ::testing::Test {
 protected:
  PlanTest() {
    testing::WriteModel(dir_.path(), TinyConfig("llama"), testing::RandomTensors(TinyConfig("llama"), 1),
                        DType::kBF16);
    options_.model_dir = dir_.path();
    options_.memory_bytes = int64_t{1} << 30;
  }
  testing::TempDir dir_;
  EngineOptions options_;
};

TEST_F(PlanTest, SizesByTokensBytesOrShareOfFreeMemory) {
  options_.kv_cache_tokens = 1000;
  auto plan = PlanEngine(options_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->limits.num_blocks, 62);
  EXPECT_EQ(plan->dtype, DType::kBF16);
  EXPECT_EQ(plan->kv_dtype, DType::kBF16);
  EXPECT_EQ(plan->limits.max_context, 512);
  const int64_t block = plan->memory.kv_block_bytes;
  options_.kv_cache_tokens = 0;
  options_.kv_cache_bytes = 10 * block + 1;
  EXPECT_EQ(PlanEngine(options_)->limits.num_blocks, 10);
  options_.kv_cache_bytes = 0;
  options_.memory_bytes = PlanEngine(options_)->memory.total_bytes();
  plan = PlanEngine(options_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const double free =
      static_cast<double>(options_.memory_bytes - plan->memory.weight_bytes - plan->memory.activation_bytes);
  EXPECT_NEAR(static_cast<double>(plan->memory.kv_bytes), 0.6 * free, static_cast<double>(block));
  EXPECT_THAT(plan->ToString(), HasSubstr("kv pool"));
}

// The decoder keeps an embedding that is not tied as it lies in the checkpoint, whatever the weights become.
TEST_F(PlanTest, AnEmbeddingOfItsOwnIsCountedAsStored) {
  const json config = TinyConfig("llama");
  testing::WriteModel(dir_.path(), config, testing::RandomTensors(config, 1), DType::kF32);
  options_.dtype = DType::kBF16;
  const auto plan = PlanEngine(options_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_FALSE(plan->model.tie_embeddings);
  const int64_t table = plan->model.vocab_size * plan->model.hidden_size;
  EXPECT_EQ(plan->memory.weight_bytes, (plan->model.num_parameters() - table) * 2 + table * 4);
}

TEST_F(PlanTest, BuffersGrowWithThreads) {
  const auto buffers = [&](int threads) {
    options_.num_threads = threads;
    return PlanEngine(options_)->memory.activation_bytes;
  };
  // Each has its sums of a product: 256 rows of 8 panels of 32 columns, twice.
  EXPECT_GE(buffers(65) - buffers(1), 64 * 2 * 256 * 8 * 32 * 4);
}

TEST_F(PlanTest, RefusalsNameTheOption) {
  const auto message = [&](const std::function<void(EngineOptions&)>& change) {
    EngineOptions options = options_;
    change(options);
    const auto plan = PlanEngine(options);
    return plan.ok() ? std::string("accepted") : std::string(plan.status().message());
  };
  EXPECT_THAT(message([](auto& o) { o.block_tokens = 32; }), HasSubstr("--block-tokens 32"));
  EXPECT_THAT(message([](auto& o) { o.max_num_seqs = 513; }), HasSubstr("[1, 512]"));
  EXPECT_THAT(message([](auto& o) { o.max_num_seqs = 0; }), HasSubstr("--max-num-seqs 0"));
  EXPECT_THAT(message([](auto& o) { o.max_step_tokens = 100; }), HasSubstr("--max-step-tokens 100"));
  EXPECT_THAT(message([](auto& o) { o.max_context = 513; }), HasSubstr("--max-context 513"));
  EXPECT_THAT(message([](auto& o) { o.num_threads = -1; }), HasSubstr("--threads"));
  EXPECT_THAT(message([](auto& o) { o.dtype = DType::kF16; }), HasSubstr("--dtype f16"));
  EXPECT_THAT(message([](auto& o) { o.dtype = DType::kI8; }), HasSubstr("--dtype"));
  EXPECT_THAT(message([](auto& o) { o.kv_dtype = DType::kI8; }), HasSubstr("--kv-dtype"));
  EXPECT_THAT(message([](auto& o) { o.kv_dtype = DType::kE4M3; }),
              HasSubstr("--kv-dtype fp8 is not supported: f32, bf16 or f16, on CUDA bf16 or fp8"));
  EXPECT_THAT(message([](auto& o) { o.kv_cache_tokens = o.kv_cache_bytes = 1 << 20; }),
              HasSubstr("give one"));
  EXPECT_THAT(message([](auto& o) { o.kv_cache_tokens = 15; }), HasSubstr("--kv-cache-tokens 15"));
  EXPECT_THAT(message([](auto& o) { o.kv_cache_tokens = int64_t{1} << 50; }), HasSubstr("do not fit"));
  EXPECT_THAT(message([](auto& o) { o.memory_bytes = 1 << 20; }), HasSubstr("do not fit"));
}

}  // namespace
}  // namespace orrery
