// The fluid program of Gate-and-Route on its published convergence instance, and its prices by asking again
// with a little more.
#include "scheduler/planning/mixed_pools.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "scheduler/base/random.h"
#include "scheduler/planning/wait_fluid.h"

namespace orrery {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

MixedPoolsInput Convergence(double rate) {
  MixedPoolsInput in;
  in.classes = {{"short prompt", 300, 1000, rate, 0.1, {}}, {"long prompt", 3000, 400, rate, 0.1, {}}};
  in.alpha_s = 0.0174;
  in.beta_s_per_token = 6.2e-5;
  in.solo_decode_rate_per_s = 45.45;
  in.slots = 16;
  in.prefill_chunk_tokens = 256;
  in.price_prompt = 0.1;
  in.price_output = 0.2;
  in.fleet_sizes = {5, 20, 50, 200, 500};
  return in;
}

double Objective(const MixedPoolsInput& in) {
  const auto plan = PlanMixedPools(in);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return plan.ok() ? plan->objective : NAN;
}

// Every constraint of the header, written out again.
void ExpectFeasible(const MixedPoolsInput& in, const MixedPoolsPlan& plan) {
  const double tau = in.alpha_s + in.beta_s_per_token * static_cast<double>(in.prefill_chunk_tokens);
  const auto slots = static_cast<double>(in.slots);
  double x = 0, mixed = 0, solo = 0, earned = 0;
  for (size_t i = 0; i < in.classes.size(); ++i) {
    const PoolClass& c = in.classes[i];
    const double p = static_cast<double>(in.prefill_chunk_tokens) / (c.prompt_tokens * tau);
    const double finished = plan.y_mixed[i] / (c.output_tokens * tau) +
                            plan.y_solo[i] * in.solo_decode_rate_per_s / c.output_tokens;
    x += plan.x[i];
    mixed += plan.y_mixed[i];
    solo += plan.y_solo[i];
    EXPECT_NEAR(c.arrival_rate_per_worker_s - c.abandon_rate_per_s * plan.q_prefill[i], p * plan.x[i], 1e-6);
    EXPECT_NEAR(p * plan.x[i] - c.abandon_rate_per_s * plan.q_decode[i], finished, 1e-6);
    earned +=
        in.charge_separately
            ? in.price_prompt * c.prompt_tokens * p * plan.x[i] + in.price_output * c.output_tokens * finished
            : c.reward.value_or(in.price_prompt * c.prompt_tokens + in.price_output * c.output_tokens) *
                  finished;
  }
  EXPECT_LE(x, 1 + 1e-9);
  EXPECT_LE(mixed, (slots - 1) * x + 1e-6);
  EXPECT_LE(solo, slots * (1 - x) + 1e-6);
  EXPECT_NEAR(earned, plan.objective, 1e-5 * (1 + std::abs(plan.objective)));
}

TEST(MixedPools, ConvergenceInstance) {  // UT-9
  const MixedPoolsInput in = Convergence(0.5);
  const auto plan = PlanMixedPools(in);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_NEAR(plan->objective, 297.7032, 5e-5);
  EXPECT_NEAR(plan->x[0], 0.01826, 5e-6);
  EXPECT_NEAR(plan->x[1], 0.19495, 5e-6);
  EXPECT_NEAR(plan->y_mixed[0], 3.19817, 5e-6);
  EXPECT_NEAR(plan->y_mixed[1], 0, 5e-6);
  EXPECT_NEAR(plan->y_solo[0], 8.18818, 5e-6);
  EXPECT_NEAR(plan->y_solo[1], 4.40044, 5e-6);
  EXPECT_NEAR(plan->q_prefill[0], 0.31725, 5e-6);
  EXPECT_NEAR(plan->q_prefill[1], 0, 5e-6);
  EXPECT_NEAR(plan->q_decode[0] + plan->q_decode[1], 0, 5e-6);
  EXPECT_THAT(plan->mixed_workers, ElementsAre(2, 5, 11, 43, 107));
  EXPECT_NEAR(plan->solo_probability[0], 0.795, 5e-4);
  EXPECT_NEAR(plan->solo_probability[1], 1, 1e-9);
  ExpectFeasible(in, *plan);
}

TEST(MixedPools, LightLoadServesEverythingSolo) {
  const MixedPoolsInput in = Convergence(0.05);
  const auto plan = PlanMixedPools(in);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_NEAR(plan->objective, 30.5, 1e-6);
  EXPECT_NEAR(plan->x[0], 0.00195, 5e-6);
  EXPECT_NEAR(plan->x[1], 0.0195, 5e-6);
  EXPECT_NEAR(plan->y_solo[0], 1.10011, 5e-6);
  EXPECT_NEAR(plan->y_solo[1], 0.44004, 5e-6);
  EXPECT_NEAR(plan->y_mixed[0] + plan->y_mixed[1], 0, 1e-6);
  ExpectFeasible(in, *plan);
}

TEST(MixedPools, PricesAreWhatALittleMoreEarns) {
  const MixedPoolsInput in = Convergence(0.5);
  const auto plan = PlanMixedPools(in);
  const double more = 1e-4;
  for (size_t i = 0; i < in.classes.size(); ++i) {
    MixedPoolsInput changed = in;
    changed.classes[i].arrival_rate_per_worker_s += more;
    EXPECT_NEAR((Objective(changed) - plan->objective) / more, plan->price_prefill[i], 1e-2) << i;
  }
  // All limits together explain the whole objective: strong duality.
  double value = plan->price_worker + 16 * plan->price_solo_slot;
  for (size_t i = 0; i < in.classes.size(); ++i) value += 0.5 * plan->price_prefill[i];
  EXPECT_NEAR(value, plan->objective, 1e-6);
  EXPECT_GT(plan->price_solo_slot, 0);
}

TEST(MixedPools, SeparateChargesAndRewards) {
  MixedPoolsInput in = Convergence(0.5);
  in.charge_separately = true;
  const auto separate = PlanMixedPools(in);
  ASSERT_TRUE(separate.ok()) << separate.status();
  ExpectFeasible(in, *separate);
  EXPECT_GE(separate->objective, 297.7032);  // what bundled serves would earn no less, paid earlier
  in.classes[0].reward = 10;
  EXPECT_EQ(PlanMixedPools(in).status().code(), absl::StatusCode::kInvalidArgument);
  in.charge_separately = false;
  const auto rewarded = PlanMixedPools(in);
  ExpectFeasible(in, *rewarded);
  EXPECT_NEAR(rewarded->y_solo[1] * in.solo_decode_rate_per_s / 400, 0.5,
              1e-6);  // all of the class that pays
}

TEST(MixedPools, RandomInstancesAreFeasibleAndEarnNoMoreThanDemand) {
  RandomStream random(9);
  for (int trial = 0; trial < 60; ++trial) {
    MixedPoolsInput in = Convergence(0.5);
    in.classes.clear();
    in.slots = 1 + static_cast<int64_t>(random.Below(32));
    in.charge_separately = random.Below(2) == 0;
    double demand = 0;
    for (uint64_t i = 0; i <= random.Below(8); ++i) {
      PoolClass c{"c",
                  10 + 4000 * random.Uniform(),
                  1 + 1000 * random.Uniform(),
                  2 * random.Uniform(),
                  0.01 + random.Uniform(),
                  {}};
      demand += c.arrival_rate_per_worker_s * (0.1 * c.prompt_tokens + 0.2 * c.output_tokens);
      in.classes.push_back(c);
    }
    const auto plan = PlanMixedPools(in);
    ASSERT_TRUE(plan.ok()) << plan.status();
    SCOPED_TRACE(trial);
    ExpectFeasible(in, *plan);
    EXPECT_LE(plan->objective, demand * (1 + 1e-9));
    EXPECT_GE(plan->price_worker, -1e-6);
    EXPECT_GE(plan->price_mixed_slot, -1e-6);
    EXPECT_GE(plan->price_solo_slot, -1e-6);
  }
}

TEST(MixedPools, WithoutPatienceTooMuchDemandIsInfeasibleByName) {
  MixedPoolsInput in = Convergence(0.5);
  for (PoolClass& c : in.classes) c.abandon_rate_per_s = 0;
  auto status = PlanMixedPools(in).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("flow of class 'long prompt'"));
  EXPECT_TRUE(PlanMixedPools([] {
                MixedPoolsInput light = Convergence(0.05);
                for (PoolClass& c : light.classes) c.abandon_rate_per_s = 0;
                return light;
              }())
                  .ok());
}

TEST(MixedPools, BadInputIsNamed) {
  const auto with = [](auto change) {
    MixedPoolsInput in = Convergence(0.5);
    change(in);
    return std::string(PlanMixedPools(in).status().message());
  };
  EXPECT_THAT(with([](auto& in) { in.classes.clear(); }), HasSubstr("classes"));
  EXPECT_THAT(with([](auto& in) { in.classes[1].output_tokens = 0; }), HasSubstr("classes[1].output_tokens"));
  EXPECT_THAT(with([](auto& in) { in.classes[0].abandon_rate_per_s = -1; }), HasSubstr("abandon_rate_per_s"));
  EXPECT_THAT(with([](auto& in) { in.slots = 0; }), HasSubstr("slots"));
  EXPECT_THAT(with([](auto& in) { in.alpha_s = in.beta_s_per_token = 0; }), HasSubstr("alpha_s"));
  EXPECT_THAT(with([](auto& in) { in.solo_decode_rate_per_s = INFINITY; }),
              HasSubstr("solo_decode_rate_per_s"));
  EXPECT_THAT(with([](auto& in) { in.fleet_sizes = {0}; }), HasSubstr("fleet_sizes[0]"));
  EXPECT_THAT(with([](auto& in) { in.price_output = NAN; }), HasSubstr("price_output"));
}

TEST(WaitFluid, Equilibrium) {  // UT-2a
  const WaitFluidInput in{0.01, 1e-7, 100'000, {{50, 156, 10}, {100, 171, 5}}};
  const auto e = SolveWaitFluid(in);
  ASSERT_TRUE(e.ok()) << e.status();
  EXPECT_THAT(e->token_iterations, ElementsAre(20096, 31906));
  EXPECT_NEAR(e->load, 0.036049, 1e-9);
  EXPECT_NEAR(e->iteration_s, 0.010373971, 5e-10);
  EXPECT_NEAR(e->per_stage[0], 0.103740, 5e-7);
  EXPECT_NEAR(e->per_stage[1], 0.051870, 5e-7);
  EXPECT_NEAR(e->kv_tokens, 3739.71, 5e-3);
  const WaitIteration one = JudgeThresholds(in, {1, 1});
  EXPECT_EQ(one.kv_tokens, 52'002);
  EXPECT_NEAR(one.iteration_s, 0.0152002, 1e-12);
  EXPECT_TRUE(one.stable);
  EXPECT_FALSE(JudgeThresholds(in, {0.1, 0.05}).stable);  // slower than they arrive
  EXPECT_FALSE(JudgeThresholds(in, {4, 1}).stable);       // more than the memory
}

TEST(WaitFluid, LimitsAreNamed) {
  WaitFluidInput in{0.01, 1e-7, 3000, {{50, 156, 10}, {100, 171, 5}}};
  EXPECT_THAT(std::string(SolveWaitFluid(in).status().message()), HasSubstr("memory"));
  in.types[0].arrival_rate_per_s = 1000;
  EXPECT_THAT(std::string(SolveWaitFluid(in).status().message()), HasSubstr("throughput"));
  in.base_s = 0;
  EXPECT_THAT(std::string(SolveWaitFluid(in).status().message()), HasSubstr("base_s"));
}

}  // namespace
}  // namespace orrery
