// BF-IO where it was made for: saturated workers behind a barrier, beside first come, first served. The bands
// are those of another simulator (design: algorithms_router.md, 1.9 and vector 24).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "scheduler/base/random.h"
#include "tests/router/sim/sim_harness.h"

namespace orrery::sim {
namespace {

constexpr double kStepSeconds = 0.010;

// Prompts uniform in [1, 2000], outputs geometric with mean 200.
SimRequest DrawGeometric(uint64_t i) {
  const auto prompt = 1 + static_cast<int32_t>(2000 * UniformAt(21, i));
  const auto output = 1 + static_cast<int32_t>(std::log1p(-UniformAt(22, i)) / std::log1p(-1.0 / 200));
  return Row(0, prompt, output);
}

struct LongestWait final : public Observer {
  double steps = 0;  // of a measured request, from arrival to its first step

  void OnRequestEnd(const SimRequest& request, const RequestEnd& end) override {
    if (end.measured)
      steps = std::max(steps, (end.first_scheduled - request.arrival).seconds() / kStepSeconds);
  }
  void OnTokenGaps(int32_t, Duration, int64_t) override {}
  void OnStep(const StepFacts&) override {}
  void OnDecision(const DecisionRecord&, int64_t) override {}
};

struct Outcome16 {
  SimReport report;
  double longest_wait = 0;
};

// 16 workers of 72 slots.
Outcome16 BehindBarrier(const std::string& router, const std::string& predictor = "request-bound") {
  SimOptions options = SmallOptions(16, 72);
  options.worker.options.num_blocks = 1 << 18;
  options.worker.predictor = predictor;
  options.router = router;
  options.barrier = true;
  options.prefill = false;
  options.pool = 64;
  options.warmup_steps = 1500;
  options.steps = 3000;
  EndlessSource source(DrawGeometric);
  LongestWait observer;
  Outcome16 outcome;
  outcome.report = MustSimulate(options, "constant:10", &source, &observer);
  outcome.longest_wait = observer.steps;
  std::printf("%-12s idle %.2f %%, imbalance %.1fk, longest wait %.0f steps\n", router.c_str(),
              100 * outcome.report.idle_fraction_mean, outcome.report.imbalance_mean / 1000,
              outcome.longest_wait);
  return outcome;
}

TEST(BfIoSaturated, TakesMostOfTheIdleTimeAtTheBarrierAway) {
  const Outcome16 fcfs = BehindBarrier("fcfs"), pure = BehindBarrier("bf-io:age=0"),
                  bounded = BehindBarrier("bf-io:age=50");
  EXPECT_GT(fcfs.report.idle_fraction_mean, 0.09);
  EXPECT_LT(fcfs.report.idle_fraction_mean, 0.11);
  EXPECT_GT(pure.report.idle_fraction_mean, 0.010);
  EXPECT_LT(pure.report.idle_fraction_mean, 0.015);
  const double ratio = fcfs.report.imbalance_mean / pure.report.imbalance_mean;
  EXPECT_GT(ratio, 7);
  EXPECT_LT(ratio, 10);
  // Nobody starves, at little cost.
  EXPECT_GT(pure.longest_wait, 500);
  EXPECT_LE(bounded.longest_wait, 60);
  EXPECT_LT(bounded.report.imbalance_mean, 1.25 * pure.report.imbalance_mean);
  // Every slot works in every step.
  for (const Outcome16* outcome : {&fcfs, &pure, &bounded}) {
    EXPECT_EQ(outcome->report.measured_tokens, 16 * 72 * 3000);
  }
}

// Poisson arrivals at 0.95 of what 16 workers of 72 slots can carry.
double IdleBelowSaturation(const std::string& router) {
  SimOptions options = SmallOptions(16, 72);
  options.router = router;
  options.barrier = true;
  options.prefill = false;
  options.warmup_requests = 10'000;
  std::vector<SimRequest> rows;
  RandomStream random(11);
  double arrival = 0;
  const double mean_gap = 200 * kStepSeconds / (0.95 * 16 * 72);
  for (uint64_t i = 0; i < 60'000; ++i) {
    arrival -= mean_gap * std::log(1 - random.Uniform());
    rows.push_back(DrawGeometric(i));
    rows.back().arrival = Time{} + Duration::Seconds(arrival);
  }
  ListSource source(std::move(rows));
  LongestWait observer;
  return MustSimulate(options, "constant:10", &source, &observer).idle_fraction_mean;
}

TEST(BfIoLimited, JustBelowSaturationWaitingForTheStepsEndHalvesWhatJsqTokensIdles) {
  const double jsq = IdleBelowSaturation("jsq-tokens"), bf_io = IdleBelowSaturation("bf-io");
  EXPECT_GT(jsq, 0.02);
  EXPECT_LT(bf_io, 0.02);
  EXPECT_LT(bf_io, 0.7 * jsq);
}

TEST(BfIoSaturated, KnowingWhoLeavesSoonHelps) {
  const Outcome16 blind = BehindBarrier("bf-io:age=0"),
                  ahead = BehindBarrier("bf-io:age=0,lookahead=5", "oracle");
  EXPECT_LT(ahead.report.imbalance_mean, 0.75 * blind.report.imbalance_mean);
}

}  // namespace
}  // namespace orrery::sim
