#include "router/sim/simulation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "scheduler/base/random.h"
#include "tests/router/sim/sim_harness.h"

namespace orrery::sim {
namespace {

constexpr int64_t kMs = 1'000'000;

// Two slots, eight tokens a step of 10 ms. Step 1 computes both prompts of A and B; step 2 decodes both and A
// ends; step 3 decodes B and computes C, and both end.
TEST(Simulation, FollowsAScheduleWorkedOutByHand) {
  SimOptions options = SmallOptions(1, 2);
  options.worker.options.max_step_tokens = 8;
  ListSource source({Row(0, 4, 2), Row(0, 4, 3), Row(0, 4, 1)});
  Told told;
  const SimReport report = MustSimulate(options, "constant:10", &source, &told);
  ASSERT_EQ(told.ends.size(), 3u);
  const int64_t kFirst[] = {10, 10, 30}, kLast[] = {20, 30, 30};
  for (uint64_t i = 0; i < 3; ++i) {
    ASSERT_EQ(told.ends[i].size(), 1u);
    EXPECT_EQ(told.ends[i][0].outcome, Outcome::kCompleted);
    EXPECT_EQ(told.ends[i][0].first_token.ns, kFirst[i] * kMs) << i;
    EXPECT_EQ(told.ends[i][0].end.ns, kLast[i] * kMs) << i;
  }
  EXPECT_EQ(told.gaps, (std::map<int64_t, int64_t>{{10 * kMs, 3}}));
  EXPECT_EQ(report.steps, 3);
  EXPECT_EQ(report.sequence_steps, 6);
  EXPECT_EQ(report.counters.generated_tokens, 6u);
}

TEST(Simulation, StepTimesFollowTheCostModelAndSlowWorkers) {
  SimOptions options = SmallOptions(2, 4);
  options.router = "round-robin";
  options.slowdown = {1, 3};
  ListSource source({Row(0, 100, 2), Row(0, 100, 2)});
  Told told;
  MustSimulate(options, "tile:c=1,a=2,b0=64", &source, &told);
  // 100 tokens are two tiles: 5 ms; one decode is one: 3 ms.
  EXPECT_EQ(told.ends[0][0].end.ns, 8 * kMs);
  EXPECT_EQ(told.ends[1][0].end.ns, 24 * kMs);
}

// UT-8.4 as served, a millisecond per prompt token: X has 700 ms left of its prompt and is due in 900 when Y
// comes, which takes 120 and is due in 200. In chunks of 100 with the urgent one first both are met; in
// arrival order and chunks of 350 Y is not.
TEST(Simulation, FlowPrefillMeetsBothDeadlinesWhereLargeChunksMissOne) {
  for (const bool flow : {true, false}) {
    SimOptions options = SmallOptions(1, 4);
    options.worker.scheduler = flow ? "flow-prefill:token_budget=100" : "fcfs:token_budget=350";
    SimRequest x = Row(0, flow ? 800 : 1050, 1), y = Row(flow ? 0.1 : 0.35, 120, 1);
    options.worker.cost = "linear:per_token=1";
    x.slo.ttft = Duration::Milliseconds((flow ? 100 : 350) + 900);
    y.slo.ttft = Duration::Milliseconds(200);
    ListSource source({x, y});
    Told told;
    MustSimulate(options, "linear:per_token=1", &source, &told);
    const auto ttft = [&](uint64_t i, const SimRequest& row) {
      return told.ends[i][0].first_token - row.arrival;
    };
    EXPECT_LE(ttft(0, x), x.slo.ttft);
    EXPECT_EQ(ttft(1, y) <= y.slo.ttft, flow);
  }
}

TEST(Simulation, BehindABarrierStepsTakeAsLongAsTheSlowest) {
  SimOptions options = SmallOptions(2, 4);
  options.router = "round-robin";
  options.barrier = true;
  options.slowdown = {1, 3};
  ListSource source({Row(0, 100, 2), Row(0, 100, 2)});
  Told told;
  const SimReport report = MustSimulate(options, "tile:c=1,a=2,b0=64", &source, &told);
  EXPECT_EQ(told.ends[0][0].end.ns, 24 * kMs);
  EXPECT_EQ(told.ends[1][0].end.ns, 24 * kMs);
  EXPECT_EQ(report.steps, 2);  // of the group
}

// One step of four workers with 100, 80, 60 and 40 tokens, of 5 s and 1 ms for each token of the fullest.
TEST(Simulation, EnergyOfAStepBehindABarrier) {
  SimOptions options = SmallOptions(4, 4);
  options.router = "round-robin";
  options.barrier = true;
  options.prefill = false;
  ListSource source({Row(0, 100, 1), Row(0, 80, 1), Row(0, 60, 1), Row(0, 40, 1)});
  Told told;
  const SimReport report = MustSimulate(options, "linear:alpha_decode=5000,per_kv_token=1", &source, &told);
  EXPECT_EQ(report.steps, 1);
  EXPECT_EQ(told.ends[3][0].end.ns, 5100 * kMs);
  EXPECT_DOUBLE_EQ(report.imbalance_mean, 120);
  EXPECT_DOUBLE_EQ(report.idle_fraction_mean, 0.3);
  double watts = 0;
  for (const double expected : {400.0, 356.62, 309.81, 257.97}) watts += expected;
  EXPECT_NEAR(report.energy_j, watts * 5.1, 0.05);
  EXPECT_NEAR(report.energy_j, 6754.40, 0.01);
}

// Loads at the beginnings of the steps: (100, 0), (101, 0), and from 20 ms on, when the second request ends
// the warm-up, (0, 50), (0, 51), (10, 52), (11, 53), and with the last arrival (12, 84). The emptying tail,
// in which one worker is left with one request for seven more steps, counts for nothing.
TEST(Simulation, LoadsAreWatchedFromTheWarmUpToTheLastArrival) {
  SimOptions options = SmallOptions(2, 4);
  options.router = "round-robin";
  options.barrier = true;
  options.prefill = false;
  options.warmup_requests = 2;
  ListSource source({Row(0, 100, 2), Row(0.020, 50, 6), Row(0.035, 10, 10), Row(0.060, 30, 1)});
  Told told;
  const SimReport report = MustSimulate(options, "constant:10", &source, &told);
  EXPECT_EQ(told.ends[2][0].end.ns, 140 * kMs);
  EXPECT_DOUBLE_EQ(report.imbalance_mean, (50 + 51 + 42 + 42 + 72) / 5.0);
  EXPECT_DOUBLE_EQ(report.idle_fraction_mean, (0.5 + 0.5 + 42 / 104.0 + 42 / 106.0 + 72 / 168.0) / 5);
}

// Beside what an observer can add up from the steps it is told of.
TEST(Simulation, MeansOfLoadsAreThoseOfTheObservedSteps) {
  for (uint64_t history = 0; history < 1000; ++history) {
    RandomStream random(history);
    SimOptions options = SmallOptions(1 + static_cast<int32_t>(random.Below(4)), 4);
    options.router = random.Below(2) == 0 ? "jsq-tokens" : "bf-io";
    options.barrier = true;
    options.prefill = false;
    options.fast_forward = random.Below(2) == 0;
    std::vector<SimRequest> rows;
    double arrival = 0;
    for (uint64_t i = 1 + random.Below(30); i > 0; --i) {
      rows.push_back(Row(arrival, 1 + static_cast<int32_t>(random.Below(50)),
                         1 + static_cast<int32_t>(random.Below(20))));
      arrival += 0.005 * static_cast<double>(random.Below(5));
    }
    options.warmup_requests = random.Below(rows.size());
    const Time first = options.warmup_requests == 0 ? Time{} : rows[options.warmup_requests - 1].arrival;
    const Time last = rows.back().arrival;
    ListSource source(rows);
    Told told;
    const SimReport report = MustSimulate(options, "constant:10", &source, &told);
    std::map<int64_t, std::vector<int64_t>> loads;  // by begin of the group's step, of who works in it
    for (const StepFacts& step : told.steps) {
      if (first <= step.start && step.start <= last) loads[step.start.ns].push_back(step.kv_tokens);
    }
    double imbalance = 0, idle = 0, loaded = 0;
    for (const auto& [at, of] : loads) {
      const auto full = static_cast<double>(*std::max_element(of.begin(), of.end()) * options.num_workers);
      if (full == 0) continue;  // a step that only lets go of who has ended
      double gap = full;
      for (const int64_t load : of) gap -= static_cast<double>(load);
      imbalance += gap;
      idle += gap / full;
      ++loaded;
    }
    const double steps = std::max(1.0, static_cast<double>(loads.size()));
    EXPECT_NEAR(report.imbalance_mean, imbalance / steps, 1e-9 * (1 + imbalance)) << history;
    EXPECT_NEAR(report.idle_fraction_mean, idle / std::max(1.0, loaded), 1e-12) << history;
  }
}

TEST(Simulation, PatienceEndsWhoHasNotStarted) {
  SimOptions options = SmallOptions(1, 1);
  std::vector<SimRequest> rows = {Row(0, 1, 10), Row(0, 1, 1), Row(0, 1, 1)};
  rows[0].patience = Duration::Milliseconds(5);    // has started
  rows[1].patience = Duration::Milliseconds(30);   // still waits
  rows[2].patience = Duration::Milliseconds(500);  // is served in time
  for (const char* router : {"jsq-tokens", "fcfs"}) {
    options.router = router;
    ListSource source(rows);
    Told told;
    MustSimulate(options, "constant:10", &source, &told);
    EXPECT_EQ(told.ends[0][0].outcome, Outcome::kCompleted);
    EXPECT_EQ(told.ends[1][0].outcome, Outcome::kCancelled);
    EXPECT_EQ(told.ends[1][0].end.ns, 30 * kMs);
    EXPECT_EQ(told.ends[2][0].end.ns, 110 * kMs);
  }
}

TEST(Simulation, WhatALostWorkerHadWaitsForItToComeBack) {
  SimOptions options = SmallOptions(1, 4);
  options.failures = {{0, Time{35 * kMs}, Duration::Milliseconds(20)}};
  ListSource source({Row(0, 1, 5), Row(0.040, 1, 1), Row(0.060, 1, 1)});
  Told told;
  const SimReport report = MustSimulate(options, "constant:10", &source, &told);
  EXPECT_EQ(told.ends[0][0].outcome, Outcome::kCompleted);
  EXPECT_EQ(told.ends[0][0].first_token.ns, 10 * kMs);
  EXPECT_EQ(told.ends[0][0].made_tokens, 5);
  EXPECT_EQ(told.ends[0][0].end.ns, 75 * kMs) << "three tokens were out; two more from 55 ms on";
  EXPECT_EQ(told.gaps, (std::map<int64_t, int64_t>{{10 * kMs, 3}, {35 * kMs, 1}}));
  EXPECT_EQ(told.ends[1][0].outcome, Outcome::kRejected);  // nobody was there
  EXPECT_EQ(told.ends[2][0].outcome, Outcome::kCompleted);
  EXPECT_EQ(report.router.replayed, 1u);
}

// The same with and without decodes apart, and with failures one after another: everybody ends with all
// tokens, once.
TEST(Simulation, NothingIsLostWhateverFails) {
  for (const bool prefill : {true, false}) {
    std::string log;
    for (const bool fast_forward : {true, false}) {
      SimOptions options = SmallOptions(3, 8);
      options.fast_forward = fast_forward;
      options.prefill = prefill;
      for (int i = 0; i < 12; ++i) {
        const Time at = {i * 40 * kMs + i * i * kMs};
        options.failures.push_back({static_cast<uint32_t>(i * 5 % 3), at, Duration::Milliseconds(15 + i)});
      }
      std::vector<SimRequest> rows;
      for (int i = 0; i < 150; ++i) rows.push_back(Row(i * 0.004, 1 + i % 23, 1 + i * 7 % 40));
      ListSource source(rows);
      Told told;
      const SimReport report = MustSimulate(options, "constant:3", &source, &told);
      ASSERT_EQ(told.ends.size(), rows.size());
      int64_t tokens = 0;
      for (const auto& [serial, ends] : told.ends) {
        ASSERT_EQ(ends.size(), 1u);
        ASSERT_EQ(ends[0].outcome, Outcome::kCompleted) << serial;
        EXPECT_EQ(ends[0].made_tokens, rows[serial].output_tokens) << serial;
        tokens += ends[0].made_tokens - 1;
      }
      for (const auto& [gap, count] : told.gaps) tokens -= count;
      EXPECT_EQ(tokens, 0) << "every token but the first has one gap";
      EXPECT_GT(report.router.replayed, 20u);
      EXPECT_EQ(report.router.gap_events, 0u);
      if (fast_forward) log = told.log;
      EXPECT_EQ(Difference(told.log, log), "");
    }
  }
}

// Eight workers in turn, at some half of what they can do.
std::vector<SimRequest> SteadyTraffic(int requests) {
  RandomStream random(5);
  std::vector<SimRequest> rows;
  double at = 0;
  for (int i = 0; i < requests; ++i) {
    at += -std::log1p(-random.Uniform()) * 0.025;
    const auto prompt = 1 + static_cast<int32_t>(200 * -std::log1p(-random.Uniform()));
    rows.push_back(Row(at, prompt, 1 + static_cast<int32_t>(100 * -std::log1p(-random.Uniform()))));
  }
  return rows;
}

constexpr char kSteadyCost[] = "linear:alpha_decode=10,per_seq=0.5,alpha_prefill=10,per_token=0.05";

double TtftQuantileMs(const Told& told, const std::vector<SimRequest>& rows, double q) {
  std::vector<double> ttft;
  for (const auto& [serial, ends] : told.ends) {
    ttft.push_back((ends.at(0).first_token - rows[serial].arrival).milliseconds());
  }
  std::sort(ttft.begin(), ttft.end());
  return ttft[static_cast<size_t>(q * static_cast<double>(ttft.size() - 1))];
}

TEST(Simulation, ASlowWorkerIsSparedAndTheTailShortens) {
  const std::vector<SimRequest> rows = SteadyTraffic(6000);
  double p99[2] = {};
  for (const bool ejects : {false, true}) {
    SimOptions options = SmallOptions(8, 32);
    options.router = "round-robin";
    options.slowdown.assign(8, 1);
    options.slowdown[3] = 6;
    if (!ejects) options.outliers.slow = 0;
    ListSource source(rows);
    Told told;
    const SimReport report = MustSimulate(options, kSteadyCost, &source, &told);
    EXPECT_EQ(report.counters.finished[static_cast<size_t>(FinishReason::kStop)] +
                  report.counters.finished[static_cast<size_t>(FinishReason::kLength)],
              rows.size());
    EXPECT_EQ(report.router.ejections > 0, ejects);
    p99[ejects] = TtftQuantileMs(told, rows, 0.99);
  }
  EXPECT_LT(p99[1], 0.2 * p99[0]) << p99[1] << " ms of " << p99[0];
}

TEST(Simulation, WhereNobodyIsSlowNobodyIsEjected) {
  const std::vector<SimRequest> rows = SteadyTraffic(6000);
  for (const char* router : {"round-robin", "jsq-tokens"}) {
    SimOptions options = SmallOptions(8, 32);
    options.router = router;
    ListSource source(rows);
    Told told;
    EXPECT_EQ(MustSimulate(options, kSteadyCost, &source, &told).router.ejections, 0u);
    // Nor behind a barrier, where all take as long as the slowest.
    options.barrier = true;
    options.slowdown = {1, 1, 1, 1, 1, 1, 1, 6};
    ListSource again(rows);
    Told behind;
    EXPECT_EQ(MustSimulate(options, kSteadyCost, &again, &behind).router.ejections, 0u);
  }
}

TEST(Simulation, TellsTheStoryOfOneRequest) {
  SimOptions options = SmallOptions(1, 1);
  options.explain = 1;
  ListSource source({Row(0, 4, 2), Row(0, 4, 3)});
  Told told;
  const SimReport report = MustSimulate(options, "constant:10", &source, &told);
  ASSERT_EQ(report.story.size(), 5u);  // arrives, placed, computes, decodes, completed
  EXPECT_NE(report.story[0].what.find("arrives"), std::string::npos);
  EXPECT_NE(report.story[1].what.find("placed on worker 0 by jsq-tokens"), std::string::npos);
  EXPECT_EQ(report.story[2].at.ns, 20 * kMs);
  EXPECT_NE(report.story[4].what.find("completed"), std::string::npos);
}

TEST(Simulation, PrefixesAreSharedThroughTheCache) {
  SimOptions options = SmallOptions(1, 4);
  const auto ids = std::make_shared<const std::vector<TokenId>>(64, 7);
  std::vector<SimRequest> rows = {Row(0, 64, 1), Row(1, 64, 1)};
  for (SimRequest& row : rows) row.tokens = ids;
  ListSource source(rows);
  Told told;
  const SimReport report = MustSimulate(options, "constant:10", &source, &told);
  EXPECT_EQ(told.ends[0][0].cached_tokens, 0);
  EXPECT_EQ(told.ends[1][0].cached_tokens, 48);  // all blocks but the last, which is computed for its sample
  EXPECT_EQ(report.counters.prefix_hit_tokens, 48u);
}

TEST(Simulation, SaysWhatIsWrongWithItsOptions) {
  const auto model = *ParseStepCost("constant:1");
  const auto status_of = [&](const SimOptions& options) {
    ListSource source({});
    Told told;
    return Simulate(options, *model, &source, &told).status();
  };
  SimOptions options = SmallOptions(1, 4);
  options.router = "round-robbin";
  EXPECT_NE(std::string(status_of(options).message()).find("round-robin"), std::string::npos);
  options = SmallOptions(1, 4);
  options.worker.scheduler = "fcfss";
  EXPECT_NE(std::string(status_of(options).message()).find("fcfs"), std::string::npos);
  options = SmallOptions(0, 4);
  EXPECT_EQ(status_of(options).code(), absl::StatusCode::kInvalidArgument);
  options = SmallOptions(2, 4);
  options.failures = {{2, Time{}, Duration{}}};
  EXPECT_EQ(status_of(options).code(), absl::StatusCode::kInvalidArgument);
}

// Little KV, failures, impatience, prefixes: every request ends exactly once, the tokens add up, and all that
// is told is the same in a second run and in one that plans the steps that were known, too.
TEST(Simulation, EveryRequestEndsExactlyOnceAndRunsRepeat) {
  int64_t passed = 0;
  for (uint64_t seed = 0; seed < 24; ++seed) {
    RandomStream random(seed);
    SimOptions options = SmallOptions(1 + static_cast<int32_t>(random.Below(4)), 1 + random.Below(12));
    options.worker.options.num_blocks = 40 + static_cast<int32_t>(random.Below(40));
    options.worker.options.max_context = 600;
    options.worker.options.max_step_tokens = 16 + static_cast<int32_t>(random.Below(100));
    static constexpr const char* kRouters[] = {"jsq-tokens", "fcfs", "round-robin"};
    options.router = kRouters[seed % 3];
    options.barrier = seed % 2 == 1;
    options.prefill = seed % 5 != 4;
    options.warmup_requests = random.Below(50);
    if (seed % 6 == 5) options.worker.scheduler = "past-future";  // promises nothing
    // Now and then a load low enough to leave a worker alone with its decodes.
    const double gap_s = seed % 3 == 0 ? 0.1 : 0.02;
    if (seed % 4 == 3) {
      options.failures = {{0, Time{700 * kMs}, Duration::Milliseconds(400)}};
    }
    std::vector<SimRequest> rows;
    double at = 0;
    for (int i = 0; i < 300; ++i) {
      at += random.Uniform() * gap_s;
      const auto prompt = 1 + static_cast<int32_t>(random.Below(300));
      rows.push_back(Row(at, prompt, 1 + static_cast<int32_t>(random.Below(120)), 200));
      if (random.Uniform() < 0.2) rows.back().patience = Duration::Milliseconds(random.Below(2000));
      rows.back().class_index = static_cast<int32_t>(random.Below(2));
      if (seed % 4 < 2 && random.Uniform() < 0.5) {
        const auto word = static_cast<TokenId>(1 + random.Below(3));
        rows.back().tokens = std::make_shared<const std::vector<TokenId>>(prompt, word);
      }
    }
    std::string first_log;
    for (int again = 0; again < 3; ++again) {
      options.fast_forward = again < 2;
      ListSource source(rows);
      Told told;
      const SimReport report =
          MustSimulate(options, "linear:alpha_decode=2,per_seq=0.1,per_token=0.05", &source, &told);
      ASSERT_EQ(told.ends.size(), rows.size());
      int64_t tokens = 0;
      for (const auto& [serial, ends] : told.ends) {
        ASSERT_EQ(ends.size(), 1u) << serial;
        const RequestEnd& end = ends[0];
        if (end.outcome == Outcome::kCompleted) {
          ASSERT_EQ(end.made_tokens, rows[serial].output_tokens);
          ASSERT_GE(end.first_token, rows[serial].arrival);
          ASSERT_GE(end.end, end.first_token);
          tokens += end.made_tokens;
        }
      }
      if (options.failures.empty()) {
        ASSERT_EQ(static_cast<uint64_t>(tokens), report.counters.generated_tokens);
      }
      ASSERT_LE(report.counters.failed_steps, 0u);
      passed += report.passed_steps;
      ASSERT_TRUE(options.fast_forward || report.passed_steps == 0);
      told.log += Summary(report);
      if (again == 0) first_log = told.log;
      ASSERT_EQ(Difference(told.log, first_log), "") << "seed " << seed << " run " << again;
    }
  }
  EXPECT_GT(passed, 10'000);
}

// One server of constant service time D under Poisson arrivals waits rho D / (2 (1 - rho)) in the mean
// (Pollaczek and Khinchine). Batch means give the interval.
TEST(Simulation, MeanWaitEqualsThatOfTheMD1Queue) {
  constexpr double kService = 0.010, kRho = 0.7;
  constexpr int kBatches = 40, kBatch = 2500;
  SimOptions options = SmallOptions(1, 1);
  RandomStream random(11);
  std::vector<SimRequest> rows;
  double at = 0;
  for (int i = 0; i < kBatches * kBatch; ++i) {
    at += -std::log1p(-random.Uniform()) * kService / kRho;
    rows.push_back(Row(at, 1, 1));
  }
  ListSource source(rows);
  Told told;
  MustSimulate(options, "constant:10", &source, &told);
  std::vector<double> means;
  for (int b = 1; b < kBatches; ++b) {  // the first one warms up
    double sum = 0;
    for (int i = b * kBatch; i < (b + 1) * kBatch; ++i) {
      sum += (told.ends[i][0].end - rows[i].arrival).seconds() - kService;
    }
    means.push_back(sum / kBatch);
  }
  double mean = 0, squares = 0;
  for (const double m : means) mean += m / static_cast<double>(means.size());
  for (const double m : means) squares += (m - mean) * (m - mean);
  const double half = 2.58 * std::sqrt(squares / static_cast<double>((means.size() - 1) * means.size()));
  EXPECT_NEAR(mean, kRho * kService / (2 * (1 - kRho)), half);
  EXPECT_LT(half, 0.1 * mean);  // the interval says something
}

// arXiv:2504.07347 with the published coefficients: c 11.28, a 35.47, b0 128, budget 512, (129, 112) tokens:
// work-conserving policies are stable up to 512 / t_512 / 241 = 13.87 requests/s.
TEST(Simulation, WorkConservingStabilityEndsWhereTheTheoremSays) {
  const auto backlog_growth = [](double rate) {
    SimOptions options = SmallOptions(1, 4096);
    options.worker.options.max_step_tokens = 512;
    options.worker.options.num_blocks = 1 << 22;
    std::vector<SimRequest> rows;
    for (int i = 0; i < 8000; ++i) rows.push_back(Row(i / rate, 129, 112));
    const Time last = rows.back().arrival;
    ListSource source(rows);
    Told told;
    MustSimulate(options, "tile:c=11.28,a=35.47,b0=128", &source, &told);
    // Requests waiting, regressed on time over the second half of the arrivals.
    double n = 0, st = 0, sw = 0, stt = 0, stw = 0;
    for (const StepFacts& step : told.steps) {
      if (step.start.ns < last.ns / 2 || step.start > last) continue;
      const double t = step.start.seconds(), w = step.num_waiting;
      n += 1, st += t, sw += w, stt += t * t, stw += t * w;
    }
    return (n * stw - st * sw) / (n * stt - st * st) / rate;
  };
  EXPECT_LT(backlog_growth(13.87 * 0.98), 0.002);
  EXPECT_GT(backlog_growth(13.87 * 1.02), 0.008);
}

}  // namespace
}  // namespace orrery::sim
