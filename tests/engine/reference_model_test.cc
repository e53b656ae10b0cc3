// The reference is checked before it judges: its logits against those that transformers computed in double
// precision for one tiny random model of each family (biases, QK-norm, tied embeddings, llama3 and linear
// rope scaling). The engine then reads the same folders.
#include "tests/engine/reference_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/checkpoint/model_config.h"
#include "engine/cpu_engine.h"
#include "tests/engine/plan_driver.h"
#include "tests/engine/prefix_logits.h"
#include "tests/engine/test_model.h"

namespace orrery {
namespace {

using nlohmann::json;

class FixtureTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    dir_ = testing::SourcePath("tests/engine/fixtures/" + GetParam());
    if (dir_.empty()) GTEST_SKIP() << "ORRERY_SOURCE_DIR is not set";
    const json expected = json::parse(testing::ReadFile(dir_ + "/expected.json"));
    tokens_ = expected["tokens"].get<std::vector<TokenId>>();
    logits_ = expected["logits"].get<std::vector<double>>();
  }
  std::string dir_;
  std::vector<TokenId> tokens_;
  std::vector<double> logits_;
};

INSTANTIATE_TEST_SUITE_P(All, FixtureTest,
                         ::testing::Values("llama_llama3_bias", "llama_linear_tied", "mistral",
                                           "qwen2_bias_tied", "qwen3_qk_norm"),
                         [](const auto& info) { return info.param; });

// transformers computes angles and their cosines in f32 whatever the weights are: 1e-6, not 1e-12.
TEST_P(FixtureTest, ReferenceEqualsTransformers) {
  const std::vector<double> ours = testing::ReferenceModel(dir_).AllLogits(tokens_);
  ASSERT_EQ(ours.size(), logits_.size());
  EXPECT_LT(testing::RelativeError(ours, logits_), 2e-6);
}

TEST_P(FixtureTest, EngineEqualsTransformersAtTheLastPosition) {
  EngineOptions options;
  options.model_dir = dir_;
  options.num_threads = 1;
  options.kv_cache_tokens = 256;
  options.max_num_seqs = 2;
  options.max_step_tokens = 64;
  auto engine = LoadCpuEngine(options);
  ASSERT_TRUE(engine.ok()) << engine.status();
  std::vector<float> last;
  (*engine)->set_logits_observer([&](const Tensor& logits) {
    const auto* data = static_cast<const float*>(logits.data);
    last.assign(data, data + logits.cols);
  });
  testing::PlanDriver driver(**engine);
  driver.Add(tokens_, 1, testing::Greedy());
  ASSERT_TRUE(driver.RunAll(17).ok());
  EXPECT_LT(
      testing::RelativeError(
          last, std::vector<double>(logits_.end() - static_cast<ptrdiff_t>(last.size()), logits_.end())),
      1e-5);
}

TEST(ReferenceModel, DiffersWhenAWeightDoes) {
  testing::TempDir a, b;
  const json config = testing::TinyConfig("llama");
  auto tensors = testing::RandomTensors(config, 1);
  testing::WriteModel(a.path(), config, tensors);
  for (auto& tensor : tensors) {
    if (tensor.name == "model.layers.2.mlp.up_proj.weight") tensor.values[5] += 0.01f;
  }
  testing::WriteModel(b.path(), config, tensors);
  const std::vector<int32_t> tokens = {1, 2, 3, 4};
  const double error = testing::RelativeError(testing::ReferenceModel(a.path()).AllLogits(tokens),
                                              testing::ReferenceModel(b.path()).AllLogits(tokens));
  EXPECT_GT(error, 1e-5);
}

}  // namespace
}  // namespace orrery
