// Prefill and decode apart, in simulated time: a schedule worked out by hand, patience between two workers,
// and the paper's convergence instance against the fluid optimum.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "scheduler/base/random.h"
#include "tests/router/sim/sim_harness.h"

namespace orrery::sim {
namespace {

constexpr int64_t kNsPerMs = 1'000'000;

// `workers` of which the first is mixed; two slots each, chunks of four tokens.
SimOptions OneMixed(int32_t workers) {
  SimOptions options = SmallOptions(workers, 2);
  options.worker.options.max_step_tokens = 8;
  options.router = "gate-and-route";
  RoutePlan plan{.id = PlanId{1}, .question = {}, .answer = {}};
  plan.question.classes = {{"", 4, 3, 1, 1, {}}};
  plan.question.slots = 2;
  plan.question.prefill_chunk_tokens = 4;
  plan.answer.x = {0.1};
  plan.answer.q_prefill = plan.answer.q_decode = {0};
  options.plan = plan;
  return options;
}

TEST(GateAndRouteSim, FollowsAScheduleWorkedOutByHand) {
  // Prompts of 4 tokens one after the other on worker 0, each 10 ms with its first token; each decodes two
  // tokens more: the first two on worker 1, the third beside the last prefill on worker 0 (it stays).
  ListSource source({Row(0, 4, 3), Row(0, 4, 3), Row(0, 4, 3), Row(0, 4, 1)});
  Told told;
  const SimReport report = MustSimulate(OneMixed(2), "constant:10", &source, &told);
  const int64_t kFirst[] = {10, 20, 30, 40}, kLast[] = {30, 40, 50, 40};
  for (uint64_t i = 0; i < 4; ++i) {
    ASSERT_EQ(told.ends[i].size(), 1u);
    EXPECT_EQ(told.ends[i][0].outcome, Outcome::kCompleted);
    EXPECT_EQ(told.ends[i][0].first_token.ns, kFirst[i] * kNsPerMs) << i;
    EXPECT_EQ(told.ends[i][0].end.ns, kLast[i] * kNsPerMs) << i;
    EXPECT_EQ(told.ends[i][0].made_tokens, i == 3 ? 1 : 3);
  }
  EXPECT_EQ(told.gaps, (std::map<int64_t, int64_t>{{10 * kNsPerMs, 6}}));
  // Nothing is computed twice: 16 tokens of prompts and 6 decodes.
  EXPECT_EQ(report.counters.computed_tokens, 22u);
}

TEST(GateAndRouteSim, PatienceRunsOutBetweenTwoWorkersButNotWhileDecoding) {
  // One worker, one decode beside the prefill: the second prefill's decode has no slot until 50 ms.
  for (const int64_t patience : {25, 35, 50}) {
    std::vector<SimRequest> rows = {Row(0, 4, 5), Row(0, 4, 2)};
    rows[0].patience = Duration::Milliseconds(1);  // begins at once
    rows[1].patience = Duration::Milliseconds(patience);
    ListSource source(rows);
    Told told;
    MustSimulate(OneMixed(1), "constant:10", &source, &told);
    EXPECT_EQ(told.ends[0][0].outcome, Outcome::kCompleted);
    EXPECT_EQ(told.ends[0][0].end.ns, 50 * kNsPerMs);
    // It waits from 0 to 10 and from 20 on.
    const RequestEnd& second = told.ends[1][0];
    EXPECT_EQ(second.first_token.ns, 20 * kNsPerMs);
    EXPECT_EQ(second.outcome, patience < 40 ? Outcome::kCancelled : Outcome::kCompleted);
    EXPECT_EQ(second.end.ns, patience < 40 ? (20 + patience - 10) * kNsPerMs : 60 * kNsPerMs);
    EXPECT_EQ(second.made_tokens, patience < 40 ? 1 : 2);
  }
}

TEST(GateAndRouteSim, NeedsAPlan) {
  SimOptions options = OneMixed(1);
  options.plan.reset();
  ListSource source(std::vector<SimRequest>{});
  Told told;
  const auto report = Simulate(options, **ParseStepCost("constant:1"), &source, &told);
  EXPECT_EQ(report.status().code(), absl::StatusCode::kInvalidArgument);
}

// UT-9: Poisson arrivals and exponential patience of the paper's two classes, for `seconds`.
std::vector<SimRequest> ConvergenceRows(const MixedPoolsInput& in, int32_t workers, double seconds,
                                        uint64_t seed) {
  std::vector<SimRequest> rows;
  for (size_t i = 0; i < in.classes.size(); ++i) {
    const PoolClass& c = in.classes[i];
    RandomStream random(seed, static_cast<uint32_t>(i));
    const auto exponential = [&](double rate) { return -std::log1p(-random.Uniform()) / rate; };
    const double rate = c.arrival_rate_per_worker_s * workers;
    for (double at = exponential(rate); at < seconds; at += exponential(rate)) {
      SimRequest row = Row(at, static_cast<int32_t>(c.prompt_tokens), static_cast<int32_t>(c.output_tokens));
      row.class_index = static_cast<int32_t>(i);
      row.patience = Duration::Seconds(exponential(c.abandon_rate_per_s));
      rows.push_back(std::move(row));
    }
  }
  std::sort(rows.begin(), rows.end(),
            [](const SimRequest& a, const SimRequest& b) { return a.arrival < b.arrival; });
  return rows;
}

// What requests that arrived after `since` earned, and how many gave up.
class Purse final : public Observer {
 public:
  Purse(const MixedPoolsInput& prices, double since) : prices_(prices), since_(since) {}
  double earned = 0;
  int64_t gave_up[2] = {};  // by class

  void OnRequestEnd(const SimRequest& request, const RequestEnd& end) override {
    if (request.arrival.seconds() < since_) return;
    gave_up[request.class_index] += end.outcome == Outcome::kCancelled;
    if (end.outcome != Outcome::kCompleted) return;
    earned += prices_.price_prompt * request.prompt_tokens + prices_.price_output * request.output_tokens;
  }
  void OnTokenGaps(int32_t, Duration, int64_t) override {}
  void OnStep(const StepFacts&) override {}
  void OnDecision(const DecisionRecord&, int64_t) override {}

 private:
  const MixedPoolsInput& prices_;
  const double since_;
};

struct Earned {
  double per_worker_s = 0;
  double long_per_short = 0;  // that gave up
};

// Of the arrivals between 60 s and 260 s.
Earned Earn(const SimOptions& options, uint64_t seed) {
  constexpr double kBegin = 60, kEnd = 260;
  const MixedPoolsInput& in = options.plan->question;
  ListSource source(ConvergenceRows(in, options.num_workers, kEnd, seed));
  Purse purse(in, kBegin);
  // A step with a full chunk takes alpha + beta C = 33.272 ms, one without prefill 1 / gamma.
  MustSimulate(options, "linear:alpha_decode=22.0022,alpha_prefill=22.0022,per_token=0.0440226", &source,
               &purse);
  return {purse.earned / (kEnd - kBegin) / options.num_workers,
          static_cast<double>(purse.gave_up[1]) / static_cast<double>(purse.gave_up[0])};
}

// The larger the closer to the program's value. ORRERY_ALL_SIZES=1 runs more workers and five seeds, a
// minute.
TEST(GateAndRouteSim, EarnsNearlyWhatTheFluidProgramAllows) {
  MixedPoolsInput in;
  in.classes = {{"short prompt", 300, 1000, 0.5, 0.1, {}}, {"long prompt", 3000, 400, 0.5, 0.1, {}}};
  in.alpha_s = 0.0174;
  in.beta_s_per_token = 6.2e-5;
  in.solo_decode_rate_per_s = 45.45;
  in.slots = 16;
  in.prefill_chunk_tokens = 256;
  in.price_prompt = 0.1;
  in.price_output = 0.2;
  const auto plan = PlanMixedPools(in);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_NEAR(plan->objective, 297.7032, 1e-4);
  struct Size {
    int32_t workers;
    double margin;  // share of the objective
  };
  const bool all = std::getenv("ORRERY_ALL_SIZES") != nullptr;
  const uint64_t seeds = all ? 5 : 1;
  for (const auto& [workers, margin] : {Size{5, 0.10}, {20, 0.05}, {50, 0.03}, {200, 0.02}}) {
    if (!all && workers > 20) break;
    SimOptions options = SmallOptions(workers, 17);
    options.worker.options.max_step_tokens = 256 + 15;
    options.worker.options.num_blocks = 1 << 20;
    options.plan = RoutePlan{PlanId{1}, in, *plan};
    double earned = 0, planned_ratio = 0, pool_ratio = 0;
    for (uint64_t seed = 1; seed <= seeds; ++seed) {
      options.router = "gate-and-route";
      options.worker.options.max_num_seqs = 17;
      const Earned planned = Earn(options, seed);
      earned += planned.per_worker_s / static_cast<double>(seeds);
      planned_ratio += planned.long_per_short;
      // The plan serves every long prompt and lets short ones wait; a pool makes no difference between them.
      options.router = "fcfs";
      options.worker.options.max_num_seqs = 16;
      pool_ratio += Earn(options, seed).long_per_short;
    }
    EXPECT_NEAR(earned, plan->objective, plan->objective * margin) << workers;
    EXPECT_LT(planned_ratio, pool_ratio * 0.7) << workers;
    if (all)
      std::printf("%d workers: %.1f, %+.2f %%\n", workers, earned, 100 * (earned / plan->objective - 1));
  }
}

}  // namespace
}  // namespace orrery::sim
