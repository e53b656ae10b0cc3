// Capacity against the published rows and against sums written out. UT numbers: the worked examples of the
// specification of arXiv:2605.04595 and arXiv:2504.07347.
#include "scheduler/planning/capacity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "scheduler/base/random.h"

namespace orrery {
namespace {

using ::testing::HasSubstr;

LengthDistribution Constant(int64_t n) { return UniformLength{n, n}; }

CapacityInput Input(const LengthDistribution& prompt, const LengthDistribution& output, double step_s) {
  CapacityInput in;
  in.kv_capacity_tokens = 131'000;
  in.prefill_chunk_tokens = 512;
  in.mean_step_s = step_s;
  in.lengths = *IndependentMoments(prompt, output, in.prefill_chunk_tokens);
  return in;
}

std::string Error(const CapacityInput& in) { return std::string(PlanCapacity(in).status().message()); }

TEST(Capacity, OneClassOfConstantLengths) {  // UT-10a
  CapacityInput in = Input(Constant(1000), Constant(500), 0.0372);
  EXPECT_NEAR(MeanTokenSteps(in.lengths, 512), 626'726.5625, 1e-6);
  in.arrival_rate_per_s = 20;
  auto plan = PlanCapacity(in);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_NEAR(plan->memory_rate_per_s, 5.61889, 5e-6);
  EXPECT_NEAR(plan->delta, 0.01145, 5e-6);
  EXPECT_NEAR(20 / plan->sufficient_rate_per_s, 3.6007, 5e-5);
  EXPECT_EQ(plan->workers_necessary, 4);
  EXPECT_EQ(plan->workers_sufficient, 4);
  in.arrival_rate_per_s = 40;
  plan = PlanCapacity(in);
  EXPECT_NEAR(40 / plan->sufficient_rate_per_s, 7.2013, 5e-5);
  EXPECT_EQ(plan->workers_sufficient, 8);
  EXPECT_EQ(plan->binding, "memory");
  EXPECT_FALSE(plan->token_rate_per_s.has_value());
  EXPECT_FALSE(plan->slot_rate_per_s.has_value());
}

TEST(Capacity, PublishedRows) {  // UT-10b
  const auto rate = [](int64_t s, int64_t o, double step_s) {
    return PlanCapacity(Input(UniformLength{10, s}, UniformLength{10, o}, step_s))->memory_rate_per_s;
  };
  EXPECT_NEAR(rate(1600, 1600, 0.0372), 3.2632, 5e-5);
  EXPECT_NEAR(rate(2133, 1066, 0.0430), 3.9563, 5e-5);
  EXPECT_NEAR(rate(1066, 2133, 0.0337), 2.9016, 5e-5);
}

TEST(Capacity, TokensBind) {  // UT-6a
  CapacityInput in = Input(Constant(129), Constant(112), 1e-6);
  in.max_step_tokens = 512;
  in.full_step_s = (11.28 + 35.47 * 4) / 1000;
  auto plan = PlanCapacity(in);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_NEAR(*plan->token_rate_per_s, 13.871, 5e-4);
  EXPECT_EQ(plan->binding, "tokens");
  EXPECT_EQ(plan->rate_per_worker_limit_per_s, *plan->token_rate_per_s);
  in.lengths = *IndependentMoments(Constant(100), Constant(100), 512);
  EXPECT_NEAR(*PlanCapacity(in)->token_rate_per_s, 16.715, 5e-4);
  // The table of the same example: tokens a millisecond of full steps.
  for (const auto& [tokens, step_ms, per_ms] : {std::tuple{128, 46.75, 2.7380},
                                                {512, 153.16, 3.3429},
                                                {1024, 295.04, 3.4707},
                                                {2048, 578.80, 3.5384}}) {
    in.max_step_tokens = tokens;
    in.full_step_s = step_ms / 1000;
    EXPECT_NEAR(*PlanCapacity(in)->token_rate_per_s * 200 / 1000, per_ms, 5e-5);
  }
}

TEST(Capacity, SlotsBind) {
  CapacityInput in = Input(Constant(1024), Constant(98), 0.01);
  in.max_num_seqs = 4;
  in.arrival_rate_per_s = 10;
  const auto plan = PlanCapacity(in);
  EXPECT_NEAR(*plan->slot_rate_per_s, 4 / (0.01 * 100), 1e-9);  // 2 chunks and 98 tokens
  EXPECT_EQ(plan->binding, "slots");
  EXPECT_EQ(plan->workers_necessary, 3);  // at exactly 10 / 4 = 2.5
}

TEST(Capacity, AFleetAtExactlyTheLimitIsNotStable) {
  CapacityInput in = Input(Constant(512), Constant(99), 0.01);
  in.max_num_seqs = 1;  // one request a second and worker
  in.arrival_rate_per_s = 3;
  EXPECT_EQ(PlanCapacity(in)->workers_necessary, 4);
  in.arrival_rate_per_s = 2.999;
  EXPECT_EQ(PlanCapacity(in)->workers_necessary, 3);
  in.arrival_rate_per_s = 0;
  EXPECT_EQ(PlanCapacity(in)->workers_necessary, 1);
}

TEST(Capacity, AMixtureIsTheHarmonicMeanOfItsClasses) {
  CapacityInput in = Input(Constant(700), Constant(300), 0.03);
  const double a = PlanCapacity(in)->memory_rate_per_s;
  in.lengths = *JointMoments({{50, 2000, 1}}, 512);
  const double b = PlanCapacity(in)->memory_rate_per_s;
  in.lengths = *JointMoments({{700, 300, 3}, {50, 2000, 1}}, 512);
  EXPECT_NEAR(PlanCapacity(in)->memory_rate_per_s, 1 / (0.75 / a + 0.25 / b), 1e-9);
  EXPECT_NEAR(PlanCapacity(in)->delta, 2050.0 / 131'000, 1e-12);
}

TEST(Capacity, MomentsAreTheSumsWrittenOut) {
  RandomStream random(4);
  for (int trial = 0; trial < 50; ++trial) {
    const auto low = static_cast<int64_t>(1 + random.Below(40)),
               high = low + static_cast<int64_t>(random.Below(90));
    const auto chunk = static_cast<int64_t>(1 + random.Below(30));
    HistogramLength histogram;
    double mean = 0, squared = 0, chunks = 0;
    for (int64_t n = low; n <= high; ++n) {
      histogram.weights.emplace_back(n, 2.5);
      const auto x = static_cast<double>(n);
      mean += x;
      squared += x * x;
      chunks += std::ceil(x / static_cast<double>(chunk));
    }
    const auto count = static_cast<double>(high - low + 1);
    for (const LengthDistribution& d :
         {LengthDistribution(UniformLength{low, high}), LengthDistribution(histogram)}) {
      const auto m = IndependentMoments(d, Constant(7), chunk);
      ASSERT_TRUE(m.ok()) << m.status();
      EXPECT_NEAR(m->prompt, mean / count, 1e-9);
      EXPECT_NEAR(m->prompt_squared, squared / count, 1e-7);
      EXPECT_NEAR(m->chunks, chunks / count, 1e-9);
      EXPECT_NEAR(m->product, 7 * mean / count, 1e-9);
      EXPECT_EQ(m->longest_total, static_cast<double>(high + 7));
    }
  }
}

TEST(Capacity, LognormalMomentsByIntegration) {
  const double median = 300, sigma = 0.8;
  const auto m = *IndependentMoments(LognormalLength{median, sigma}, Constant(1), 256);
  double mean = 0, squared = 0, chunks = 0, total = 0;
  for (double z = -8; z <= 8; z += 1e-4) {
    const double weight = std::exp(-z * z / 2), x = median * std::exp(sigma * z);
    total += weight;
    mean += weight * x;
    squared += weight * x * x;
    chunks += weight * std::ceil(x / 256);
  }
  EXPECT_NEAR(m.prompt, mean / total, 1e-4 * m.prompt);
  EXPECT_NEAR(m.prompt_squared, squared / total, 1e-4 * m.prompt_squared);
  EXPECT_NEAR(m.chunks, chunks / total, 1e-3);
  EXPECT_TRUE(std::isinf(m.longest_total));
  // Without a longest request there is a limit that no fleet may fall below, but no promise.
  CapacityInput in = Input(LognormalLength{median, sigma}, Constant(100), 0.03);
  in.arrival_rate_per_s = 50;
  const auto plan = PlanCapacity(in);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_GT(plan->memory_rate_per_s, 0);
  EXPECT_EQ(plan->sufficient_rate_per_s, 0);
  EXPECT_FALSE(plan->workers_sufficient.has_value());
}

TEST(Capacity, BadInputIsNamed) {
  CapacityInput in = Input(Constant(100), Constant(100), 0.03);
  const auto with = [&in](auto change) {
    CapacityInput changed = in;
    change(changed);
    return Error(changed);
  };
  EXPECT_THAT(with([](auto& c) { c.mean_step_s = 0; }), HasSubstr("mean_step_s"));
  EXPECT_THAT(with([](auto& c) { c.arrival_rate_per_s = -1; }), HasSubstr("arrival_rate_per_s"));
  EXPECT_THAT(with([](auto& c) { c.arrival_rate_per_s = std::nan(""); }), HasSubstr("arrival_rate_per_s"));
  EXPECT_THAT(with([](auto& c) { c.prefill_chunk_tokens = 0; }), HasSubstr("prefill_chunk_tokens"));
  EXPECT_THAT(with([](auto& c) { c.max_num_seqs = 0; }), HasSubstr("max_num_seqs"));
  EXPECT_THAT(with([](auto& c) { c.full_step_s = 1; }), HasSubstr("max_step_tokens"));
  CapacityInput small = in;
  small.kv_capacity_tokens = 199;
  EXPECT_EQ(PlanCapacity(small).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Error(small), HasSubstr("kv_capacity_tokens"));
  const auto length = [](const LengthDistribution& d) {
    return std::string(IndependentMoments(Constant(1), d, 1).status().message());
  };
  EXPECT_THAT(length(UniformLength{5, 4}), HasSubstr("output_tokens"));
  EXPECT_THAT(length(UniformLength{0, 4}), HasSubstr("output_tokens"));
  EXPECT_THAT(length(LognormalLength{100, 50}), HasSubstr("sigma"));
  EXPECT_THAT(length(LognormalLength{0.5, 1}), HasSubstr("median"));
  EXPECT_THAT(length(HistogramLength{}), HasSubstr("weights"));
  EXPECT_THAT(length(HistogramLength{{{5, -1.0}}}), HasSubstr("weights"));
  EXPECT_FALSE(JointMoments({}, 1).ok());
  EXPECT_FALSE(JointMoments({{1, 0, 1}}, 1).ok());
}

}  // namespace
}  // namespace orrery
