#include "scheduler/cost/step_cost.h"

#include <gtest/gtest.h>

namespace orrery {
namespace {

TEST(StepCost, LinearMatchesTheFormulaByHand) {
  // Coefficients of the published fit for Llama-3-8B on an A100.
  const auto cost = NewLinearCost({.alpha_decode = 10.9211,
                                   .per_seq = 0.03133,
                                   .per_kv_token = 8.056e-05,
                                   .alpha_prefill = 6.104,
                                   .per_token = 0.05295,
                                   .per_token_sq = 1.706e-06});
  StepShape shape;
  EXPECT_EQ(cost->Predict(shape).ns, 0);
  shape.AddDecode(1000);
  shape.AddDecode(500);
  EXPECT_NEAR(cost->Predict(shape).milliseconds(), 10.9211 + 2 * 0.03133 + 8.056e-05 * 1500, 1e-5);
  shape.AddChunk(100, 50);
  EXPECT_NEAR(cost->Predict(shape).milliseconds(),
              10.9211 + 2 * 0.03133 + 8.056e-05 * 1500 + 0.05295 * 50 + 1.706e-06 * (150 * 150 - 100 * 100),
              1e-5);
  StepShape prefill;
  prefill.AddChunk(0, 512);
  EXPECT_NEAR(cost->Predict(prefill).milliseconds(), 6.104 + 0.05295 * 512 + 1.706e-06 * 512 * 512, 1e-5);
}

TEST(StepCost, ChunksOfAPromptCostWhatThePromptCosts) {
  const auto cost = NewLinearCost({.per_token = 0.01, .per_token_sq = 1e-5});
  StepShape whole, first, second;
  whole.AddChunk(0, 300);
  first.AddChunk(0, 120);
  second.AddChunk(120, 180);
  EXPECT_NEAR(cost->Predict(whole).milliseconds(),
              cost->Predict(first).milliseconds() + cost->Predict(second).milliseconds(), 1e-5);
}

TEST(StepCost, ShapeOfAPlan) {
  StepPlan plan;
  plan.slices = {{.begin = 9, .count = 1, .sample = true},
                 {.begin = 10, .count = 20, .sample = true},
                 {.begin = 5, .count = 1, .sample = false}};
  const StepShape shape = ShapeOf(plan);
  EXPECT_EQ(shape.decodes, 1);
  EXPECT_EQ(shape.decode_context, 10);
  EXPECT_EQ(shape.chunks, 2);
  EXPECT_EQ(shape.prefill_tokens, 21);
  EXPECT_EQ(shape.prefill_squares, (30. * 30 - 10 * 10) + (6. * 6 - 5 * 5));
}

TEST(StepCost, ParsesItsForms) {
  StepShape shape;
  shape.AddChunk(0, 257);
  EXPECT_EQ((*ParseStepCost("constant:2.5"))->Predict(shape), Duration::Microseconds(2500));
  // c + a * ceil(257 / 128): the published CodeLlama-34B row.
  EXPECT_NEAR((*ParseStepCost("tile:c=11.28,a=35.47,b0=128"))->Predict(shape).milliseconds(),
              11.28 + 3 * 35.47, 1e-5);
  const LinearCostOptions options = {.alpha_decode = 0.1, .per_token = 1.0 / 3, .per_token_sq = 1e-9};
  const auto parsed = ParseStepCost(FormatLinearCost(options));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ((*parsed)->Predict(shape), NewLinearCost(options)->Predict(shape));
}

TEST(StepCost, RefusesTheRest) {
  for (const char* text : {"", "constant:", "constant:-1", "constant:nan", "constant:1e9", "tile:b0=0",
                           "linear:alpha=1", "quadratic:a=1", "tile:a=-1"}) {
    EXPECT_EQ(ParseStepCost(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace orrery
