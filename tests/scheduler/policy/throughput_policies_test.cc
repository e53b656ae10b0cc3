// rad and lagrangian: worked examples (UT-5a, UT-8.5 of the design), and rad's boundary of stability.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/cost/step_cost.h"
#include "scheduler/policy/lagrangian.h"
#include "scheduler/policy/rad.h"
#include "tests/scheduler/policy/decide.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;

TEST(Rad, Ut5aUnits) {
  EXPECT_EQ(RadUnit({.tile = 256, .tile_rows = 128, .tile_reduction = 64}), 256);
  EXPECT_EQ(RadUnit({.tile = 96, .tile_rows = 128, .tile_reduction = 64}), 384);
}

Scene RadScene(int decodes, int32_t prompt) {
  Scene scene;
  scene.limits = {.max_step_tokens = 4096, .max_num_seqs = 256, .block_tokens = 16};
  scene.now = AtMs(1000);
  for (int i = 0; i < decodes; ++i) {
    scene.running.push_back(DecodingView(static_cast<uint64_t>(i + 1), 100, 5, AtMs(990)));
  }
  if (prompt > 0) scene.waiting = {WaitingView(900, prompt, AtMs(990)), WaitingView(901, 300, AtMs(990))};
  return scene;
}

TEST(Rad, PrefillsUntilTheDecodesFillATile) {
  RadPolicy policy({.units = 1});
  EXPECT_THAT(Decide(&policy, RadScene(4, 100)), ElementsAre("admit 900:100", "admit 901:28"));
  EXPECT_EQ(Decide(&policy, RadScene(128, 100)).size(), 128u) << "decodes alone";
  EXPECT_THAT(Decide(&policy, RadScene(2, 0)), ElementsAre("run 1:1", "run 2:1"));
  Scene scene = RadScene(4, 100);
  scene.limits.max_step_tokens = 400;
  RadPolicy whole({});
  EXPECT_THAT(Decide(&whole, scene), ElementsAre("admit 900:100", "admit 901:284")) << "three units";
}

TEST(Rad, DecodesRunWhenTheyWaitedTooLongOrNoPromptFits) {
  RadPolicy policy({.units = 1});
  Scene scene = RadScene(2, 100);
  scene.now = AtMs(1190);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 1:1", "run 2:1"));
  scene = RadScene(2, 100);
  scene.blocks_free = 6;  // 100 tokens take seven
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 1:1", "run 2:1"));
}

TEST(Rad, ACycleEndsBeforeTheNextBegins) {
  RadPolicy policy({.cycle = 1});
  Scene scene = RadScene(0, 100);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 900:100"));
  scene = RadScene(1, 100);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 1:1"));
  EXPECT_THAT(Decide(&policy, RadScene(0, 100)), ElementsAre("admit 900:100"));
}

// UT-5a: a tile of 128 tokens takes 4.640 ms, 27.586 tokens per ms; requests of 760 tokens: 36.298 per
// second. Arrivals at 20 and 30 per second leave a queue that does not grow, at 40 per second one that does.
double QueueGrowth(double rate) {
  constexpr int32_t kPrompt = 640, kOutput = 120;
  RadPolicy policy({.units = 1});
  RandomStream random(11);
  Scene scene = RadScene(0, 0);
  scene.blocks_free = scene.blocks_total = 1 << 20;
  double now = 0, next_arrival = 0, middle = 0;
  uint64_t id = 0;
  std::vector<SequenceView>& running = scene.running;
  constexpr double kEnd = 120;
  while (now < kEnd) {
    for (; next_arrival <= now;
         next_arrival -= std::log(1 - static_cast<double>(random.Below(1 << 20)) / (1 << 20)) / rate) {
      scene.waiting.push_back(WaitingView(++id, kPrompt, Time{} + Duration::Seconds(next_arrival), kOutput));
    }
    scene.now = Time{} + Duration::Seconds(now);
    scene.free_slots = 256 - static_cast<int32_t>(running.size());
    BatchDecision decision;
    policy.Plan(scene.view(), scene.now, &decision);
    int32_t tokens = 0;
    for (const Grant& grant : decision.admit) {
      const auto at = std::find_if(scene.waiting.begin(), scene.waiting.end(),
                                   [&](const auto& view) { return view.id == grant.sequence; });
      at->first_scheduled = scene.now;
      running.push_back(*at);
      scene.waiting.erase(at);
    }
    decision.run.insert(decision.run.end(), decision.admit.begin(), decision.admit.end());
    for (const Grant& grant : decision.run) tokens += grant.count;
    now = tokens == 0 ? std::max(now + 1e-3, next_arrival) : now + 4.640e-3 * ((tokens + 127) / 128);
    size_t hint = 0;
    for (const Grant& grant : decision.run) {
      while (running[hint].id != grant.sequence) hint = (hint + 1) % running.size();
      SequenceView& view = running[hint];
      view.num_computed += grant.count;
      view.num_blocks = BlocksFor(view.num_computed, 16);
      if (view.num_computed < view.num_tokens) continue;
      ++view.num_tokens;
      ++view.num_generated;
      view.last_token = Time{} + Duration::Seconds(now);
    }
    std::erase_if(running,
                  [](const SequenceView& view) { return view.num_generated >= view.max_new_tokens; });
    if (now < kEnd / 2) middle = static_cast<double>(scene.waiting.size());
  }
  return (static_cast<double>(scene.waiting.size()) - middle) / (kEnd / 2);
}

TEST(Rad, Ut5aBoundaryOfStability) {
  EXPECT_LT(QueueGrowth(20), 0.5);
  EXPECT_LT(QueueGrowth(30), 0.5);
  EXPECT_GT(QueueGrowth(40), 1.5) << "36.298 per second is what anybody could serve";
}

// Decode steps take 40 ms, the prompts here 160 ms in all.
class StepAndPrompts final : public StepCostModel {
 public:
  Duration Predict(const StepShape& shape) const override {
    return Duration::Milliseconds(shape.chunks > 0 ? 40 * shape.chunks : 40);
  }
};

// UT-8.5: 20 rows, 16 of them decode, 4 wait.
TEST(Lagrangian, Ut85PrefillsAfterSixteenDecodeSteps) {
  const StepAndPrompts cost;
  LagrangianPolicy policy({});
  Scene scene;
  scene.cost = &cost;
  scene.limits.max_num_seqs = 20;
  scene.free_slots = 4;
  for (uint64_t id = 1; id <= 16; ++id) scene.running.push_back(DecodingView(id, 100, 5, AtMs(0)));
  for (uint64_t id = 20; id < 24; ++id) scene.waiting.push_back(WaitingView(id, 50));
  for (int step = 0; step < 16; ++step) {
    EXPECT_EQ(Decide(&policy, scene).front(), "run 1:1") << step;
  }
  EXPECT_THAT(Decide(&policy, scene),
              ElementsAre("admit 20:50", "admit 21:50", "admit 22:50", "admit 23:50"));
  EXPECT_EQ(Decide(&policy, scene).front(), "run 1:1") << "and anew";
}

TEST(Lagrangian, PrefillsAtOnceWhenNothingDecodesAndGoesOnUntilDone) {
  const StepAndPrompts cost;
  LagrangianPolicy policy({.aging = 0});
  Scene scene;
  scene.cost = &cost;
  scene.limits = {.max_step_tokens = 100, .max_num_seqs = 4, .block_tokens = 16};
  scene.waiting = {WaitingView(1, 80, {}, 90), WaitingView(2, 80, {}, 50)};
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 2:80", "admit 1:20")) << "shortest output first";
  scene.waiting = {WaitingView(3, 10)};
  scene.running = {DecodingView(2, 80, 1, AtMs(0)), PrefillingView(1, 80, 20)};
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 1:60")) << "no decodes, and no third";
  LagrangianPolicy longest({.longest = true, .aging = 0});
  scene.running.clear();
  scene.waiting = {WaitingView(1, 80, {}, 50), WaitingView(2, 80, {}, 90)};
  EXPECT_THAT(Decide(&longest, scene), ElementsAre("admit 2:80", "admit 1:20"));
}

TEST(Lagrangian, AgingLetsTheLongOneIn) {
  LagrangianPolicy policy({.aging = 10});
  Scene scene;
  scene.now = AtMs(10000);
  scene.limits.max_step_tokens = 80;
  scene.waiting = {WaitingView(1, 80, AtMs(0), 100), WaitingView(2, 80, AtMs(9900), 50)};
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 1:80"));
}

}  // namespace
}  // namespace orrery
