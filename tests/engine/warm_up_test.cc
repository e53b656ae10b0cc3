#include "engine/warm_up.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <utility>
#include <vector>

#include "engine/cpu_engine.h"
#include "tests/engine/plan_driver.h"
#include "tests/engine/test_model.h"

namespace orrery {
namespace {

// Keeps the shapes of its steps and checks them against its limits.
class Onlooker final : public Executor {
 public:
  explicit Onlooker(const EngineLimits& limits) : limits_(limits) {}
  const EngineLimits& limits() const override { return limits_; }
  int max_in_flight() const override { return 1; }
  absl::Status Launch(const StepPlan& plan) override {
    for (const uint32_t slot : plan.released_slots) EXPECT_EQ(taken_.erase(slot), 1u);
    for (const AdmittedSequence& admitted : plan.admitted) {
      EXPECT_LT(admitted.slot, static_cast<uint32_t>(limits_.max_num_seqs));
      EXPECT_TRUE(taken_.insert(admitted.slot).second);
    }
    std::set<BlockId> blocks(plan.blocks.begin(), plan.blocks.end());
    EXPECT_EQ(blocks.size(), plan.blocks.size());
    EXPECT_TRUE(blocks.empty() || Value(*blocks.rbegin()) < limits_.num_blocks);
    EXPECT_LE(plan.num_tokens, limits_.max_step_tokens);
    for (const Slice& slice : plan.slices) EXPECT_LE(slice.count, limits_.max_context);
    if (!plan.slices.empty()) shapes_.emplace_back(plan.slices.size(), plan.slices[0].count);
    return fails_at_ == shapes_.size() ? absl::InternalError("broken") : absl::OkStatus();
  }
  absl::Status Wait(StepId step, StepResult* result) override {
    result->step = step;
    return absl::OkStatus();
  }

  const std::vector<std::pair<size_t, int32_t>>& shapes() const { return shapes_; }
  size_t num_taken() const { return taken_.size(); }
  size_t fails_at_ = 0;  // steps with work; 0: never

 private:
  const EngineLimits limits_;
  std::set<uint32_t> taken_;
  std::vector<std::pair<size_t, int32_t>> shapes_;
};

// Those of decode steps twice.
TEST(WarmUp, GoesThroughTheSizesUpToTheLimits) {
  Onlooker onlooker({.num_blocks = 64, .max_num_seqs = 6, .max_step_tokens = 100, .max_context = 40});
  ASSERT_TRUE(WarmUp(onlooker).ok());
  EXPECT_THAT(onlooker.shapes(),
              ::testing::ElementsAre(std::pair(1, 1), std::pair(1, 1), std::pair(2, 1), std::pair(2, 1),
                                     std::pair(4, 1), std::pair(4, 1), std::pair(6, 1), std::pair(6, 1),
                                     std::pair(1, 2), std::pair(1, 4), std::pair(1, 8), std::pair(1, 16),
                                     std::pair(1, 32), std::pair(2, 32), std::pair(3, 33)));
  EXPECT_EQ(onlooker.num_taken(), 0u);
}

TEST(WarmUp, LeavesOutWhatAPoolHasNoRoomFor) {
  Onlooker onlooker({.num_blocks = 2, .max_num_seqs = 8, .max_step_tokens = 64, .max_context = 64});
  ASSERT_TRUE(WarmUp(onlooker).ok());
  EXPECT_THAT(onlooker.shapes(), ::testing::ElementsAre(std::pair(1, 1), std::pair(1, 1), std::pair(2, 1),
                                                        std::pair(2, 1), std::pair(1, 2), std::pair(1, 4),
                                                        std::pair(1, 8), std::pair(1, 16), std::pair(1, 32)));
}

TEST(WarmUp, EndsWithTheFirstError) {
  Onlooker onlooker({.num_blocks = 64, .max_num_seqs = 6, .max_step_tokens = 100, .max_context = 40});
  onlooker.fails_at_ = 3;
  EXPECT_EQ(WarmUp(onlooker).message(), "broken");
  EXPECT_EQ(onlooker.shapes().size(), 3u);
}

// An engine computes what it would have computed.
TEST(WarmUp, ChangesNothing) {
  testing::TempDir dir;
  const nlohmann::json config = testing::TinyConfig("llama");
  testing::WriteModel(dir.path(), config, testing::RandomTensors(config, 3));
  EngineOptions options;
  options.model_dir = dir.path();
  options.num_threads = 1;
  options.kv_cache_tokens = 256;
  options.max_num_seqs = 4;
  options.max_step_tokens = 32;
  std::vector<TokenId> outputs[2];
  for (const bool warm : {false, true}) {
    auto engine = LoadCpuEngine(options);
    ASSERT_TRUE(engine.ok()) << engine.status();
    if (warm) {
      ASSERT_TRUE(WarmUp(**engine).ok());
    }
    testing::PlanDriver driver(**engine);
    const int handle = driver.Add({1, 5, 9, 2, 7}, 20, testing::Greedy());
    ASSERT_TRUE(driver.RunAll(3).ok());
    outputs[warm] = driver.sequence(handle).output;
  }
  EXPECT_EQ(outputs[0].size(), 20u);
  EXPECT_EQ(outputs[0], outputs[1]);
}

}  // namespace
}  // namespace orrery
