// Prices of a worker's resources against a knapsack solved by hand, strong duality, finite differences, and a
// request walked through step by step.
#include "scheduler/planning/resource_prices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "scheduler/base/random.h"

namespace orrery {
namespace {

using ::testing::HasSubstr;

// Blocks that the request holds, summed over its steps.
RequestUse Walk(int prompt, int cached, int output, int chunk, int block) {
  RequestUse use;
  int held = cached;
  const auto step = [&] {
    use.steps += 1;
    use.block_steps += (held + block - 1) / block;
  };
  while (held < prompt) {
    held = std::min(prompt, held + chunk);
    step();
  }
  for (int i = 0; i < output; ++i) {
    ++held;
    step();
  }
  return use;
}

TEST(ResourcePrices, UseOfARequestIsWhatItsStepsHold) {
  const RequestUse exact = UseOf(1536, 0, 500, 512, 1), walked = Walk(1536, 0, 500, 512, 1);
  EXPECT_DOUBLE_EQ(exact.steps, walked.steps);
  EXPECT_DOUBLE_EQ(exact.block_steps, walked.block_steps);
  const RequestUse cached = UseOf(1536, 512, 500, 512, 1), walked_cached = Walk(1536, 512, 500, 512, 1);
  EXPECT_DOUBLE_EQ(cached.steps, walked_cached.steps);
  EXPECT_DOUBLE_EQ(cached.block_steps, walked_cached.block_steps);
  // With blocks of 16 the last one is half full on average.
  const RequestUse blocks = UseOf(1536, 0, 500, 512, 16), walked_blocks = Walk(1536, 0, 500, 512, 16);
  EXPECT_NEAR(blocks.block_steps / walked_blocks.block_steps, 1, 0.002);
}

TEST(ResourcePrices, MemoryShort) {
  // A kilotoken of output costs the first class 20 blocks and the second 40: the first is served whole, the
  // second with the 60 blocks left, and a block more makes 25 tokens of the second.
  const WorkerResources worker = {
      .kv_blocks = 100, .prefill_tokens_per_s = 1e6, .slots = 1e6, .mean_step_s = 0.02};
  const std::vector<TrafficClass> classes = {{.arrival_rate_per_s = 2,
                                              .prompt_tokens = 10,
                                              .output_tokens = 1000,
                                              .steps = 1001,
                                              .block_steps = 1000},
                                             {.arrival_rate_per_s = 5,
                                              .prompt_tokens = 10,
                                              .output_tokens = 500,
                                              .steps = 501,
                                              .block_steps = 1000}};
  const auto prices = PriceResources(worker, classes);
  ASSERT_TRUE(prices.ok()) << prices.status();
  EXPECT_NEAR(prices->kv_block_second, 25, 1e-9);
  EXPECT_EQ(prices->prefill_token, 0);
  EXPECT_EQ(prices->slot_second, 0);
  EXPECT_NEAR(prices->output_tokens_per_s, 2 * 1000 + 3 * 500, 1e-6);
  EXPECT_THAT(prices->served_rate_per_s,
              testing::ElementsAre(testing::DoubleNear(2, 1e-9), testing::DoubleNear(3, 1e-9)));
}

TEST(ResourcePrices, NothingIsWorthAnythingWhereNothingIsShort) {
  const WorkerResources worker = {
      .kv_blocks = 100, .prefill_tokens_per_s = 1000, .slots = 10, .mean_step_s = 0.02};
  for (const std::vector<TrafficClass>& classes :
       {std::vector<TrafficClass>{}, std::vector<TrafficClass>{{0.01, 100, 100, 101, 100}}}) {
    const auto prices = PriceResources(worker, classes);
    ASSERT_TRUE(prices.ok()) << prices.status();
    EXPECT_EQ(prices->kv_block_second, 0);
    EXPECT_EQ(prices->prefill_token, 0);
    EXPECT_EQ(prices->slot_second, 0);
  }
}

// The value of everything at these prices is the optimum, and a little more of a resource brings its price.
TEST(ResourcePrices, DualityAndFiniteDifferences) {
  int priced = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    RandomStream random(seed);
    const auto draw = [&](double low, double high) { return low + (high - low) * random.Uniform(); };
    const double step_s = draw(0.005, 0.05);
    WorkerResources worker = {
        .kv_blocks = draw(50, 5000), .prefill_tokens_per_s = draw(500, 20000), .slots = draw(4, 256)};
    worker.mean_step_s = step_s;
    std::vector<TrafficClass> classes(1 + random.Below(12));
    for (TrafficClass& c : classes) {
      c = {draw(0, 5), draw(10, 4000), draw(1, 1000)};
      const RequestUse use = UseOf(c.prompt_tokens, 0, c.output_tokens, 512, 16);
      c.steps = use.steps;
      c.block_steps = use.block_steps;
    }
    const auto prices = PriceResources(worker, classes);
    ASSERT_TRUE(prices.ok()) << prices.status();
    double value = worker.kv_blocks * prices->kv_block_second + worker.slots * prices->slot_second +
                   worker.prefill_tokens_per_s * prices->prefill_token;
    for (const TrafficClass& c : classes) {
      const double cost = step_s * c.block_steps * prices->kv_block_second +
                          c.prompt_tokens * prices->prefill_token + step_s * c.steps * prices->slot_second;
      value += c.arrival_rate_per_s * std::max(0.0, c.output_tokens - cost);
    }
    ASSERT_NEAR(value, prices->output_tokens_per_s, 1e-6 * (1 + value)) << seed;
    const auto gain = [&](double WorkerResources::*resource, double price) {
      WorkerResources more = worker;
      const double extra = 1e-6 * more.*resource;
      more.*resource += extra;
      const auto better = PriceResources(more, classes);
      ASSERT_TRUE(better.ok()) << better.status();
      const double per_unit = (better->output_tokens_per_s - prices->output_tokens_per_s) / extra;
      EXPECT_NEAR(per_unit, price, 1e-3 * price + 1e-3) << seed;
      priced += price > 0;
    };
    gain(&WorkerResources::kv_blocks, prices->kv_block_second);
    gain(&WorkerResources::prefill_tokens_per_s, prices->prefill_token);
    gain(&WorkerResources::slots, prices->slot_second);
  }
  EXPECT_GT(priced, 100);
}

TEST(ResourcePrices, BadNumbersAreNamed) {
  const auto error = [](const WorkerResources& worker, const std::vector<TrafficClass>& classes) {
    return std::string(PriceResources(worker, classes).status().message());
  };
  EXPECT_THAT(error({1, 1, 1, 0}, {}), HasSubstr("mean_step_s"));
  EXPECT_THAT(error({-1, 1, 1, 1}, {}), HasSubstr("kv_blocks"));
  EXPECT_THAT(error({1, 1, 1, 1}, {{1, 1, 1, 1, 1}, {1, std::nan(""), 1, 1, 1}}),
              HasSubstr("classes[1].prompt_tokens"));
  EXPECT_THAT(error({1, 1, std::numeric_limits<double>::infinity(), 1}, {}), HasSubstr("slots"));
}

}  // namespace
}  // namespace orrery
