// Hindsight against worked examples (UT-1 of the specification of arXiv:2502.07115), against trying every
// schedule, and MC-SF against it on the paper's synthetic models.
#include "scheduler/planning/hindsight.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "scheduler/planning/dual_bound.h"
#include "scheduler/planning/start_cliques.h"
#include "tests/scheduler/planning/round_search.h"
#include "tests/scheduler/planning/synthetic.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

UnitInstance TwoAlike() { return {10, {{0, 1, 6}, {0, 1, 6}}}; }                               // UT-1a
UnitInstance Five() { return {10, {{0, 2, 4}, {0, 2, 2}, {0, 3, 3}, {0, 1, 6}, {2, 2, 1}}}; }  // UT-1b
UnitInstance Four() { return {10, {{0, 2, 4}, {0, 2, 2}, {0, 3, 3}, {0, 1, 6}}}; }             // UT-1c

HindsightPlan Plan(const UnitInstance& instance, const HindsightOptions& options = {}) {
  auto plan = PlanHindsight(instance, options);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return plan.ok() ? *plan : HindsightPlan{};
}

// Tokens held in every round, from the definition.
std::map<int64_t, int64_t> Occupancy(const UnitInstance& instance, const std::vector<int64_t>& starts) {
  std::map<int64_t, int64_t> held;
  for (size_t i = 0; i < starts.size(); ++i) {
    const UnitRequest& r = instance.requests[i];
    for (int64_t j = 1; j <= r.output_tokens; ++j) held[starts[i] + j] += r.prompt_tokens + j;
  }
  return held;
}

int64_t TotalLatency(const UnitInstance& instance, const std::vector<int64_t>& starts) {
  int64_t total = 0;
  for (size_t i = 0; i < starts.size(); ++i)
    total += starts[i] + instance.requests[i].output_tokens - instance.requests[i].arrival;
  return total;
}

void ExpectFits(const UnitInstance& instance, const std::vector<int64_t>& starts) {
  for (const auto& [round, tokens] : Occupancy(instance, starts))
    EXPECT_LE(tokens, instance.kv_capacity_tokens) << "round " << round;
}

// MC-SF as the paper writes it, round by round, Eq. 5 checked at every round until all have ended. Nothing is
// shared with the code under test.
std::vector<int64_t> ReferenceRun(const UnitInstance& instance, bool shortest_first) {
  const size_t n = instance.requests.size();
  std::vector<int64_t> starts(n, -1);
  const auto fits = [&](int64_t now) {
    for (int64_t later = now + 1; later <= now + instance.kv_capacity_tokens; ++later) {
      int64_t tokens = 0;
      for (size_t i = 0; i < n; ++i) {
        const int64_t age = later - starts[i];
        if (starts[i] >= 0 && age >= 1 && age <= instance.requests[i].output_tokens)
          tokens += instance.requests[i].prompt_tokens + age;
      }
      if (tokens > instance.kv_capacity_tokens) return false;
    }
    return true;
  };
  size_t placed = 0;
  for (int64_t now = 0; placed < n; ++now) {
    std::vector<size_t> waiting;
    for (size_t i = 0; i < n; ++i) {
      if (starts[i] < 0 && instance.requests[i].arrival <= now) waiting.push_back(i);
    }
    std::stable_sort(waiting.begin(), waiting.end(), [&](size_t a, size_t b) {
      const UnitRequest &ra = instance.requests[a], &rb = instance.requests[b];
      if (shortest_first && ra.output_tokens != rb.output_tokens) return ra.output_tokens < rb.output_tokens;
      return ra.arrival < rb.arrival;
    });
    for (const size_t i : waiting) {
      starts[i] = now;
      if (!fits(now)) {
        starts[i] = -1;
        break;
      }
      ++placed;
    }
  }
  return starts;
}

// Every vector of starts whose total stays below the best found.
int64_t TryEverySchedule(const UnitInstance& instance) {
  const size_t n = instance.requests.size();
  int64_t best = TotalLatency(instance, ReferenceRun(instance, true));
  int64_t rest = 0;  // outputs of the requests not yet placed
  for (const UnitRequest& r : instance.requests) rest += r.output_tokens;
  std::vector<int64_t> held(4096, 0);
  const auto visit = [&](auto& self, size_t i, int64_t total, int64_t left) -> void {
    if (i == n) {
      best = std::min(best, total);
      return;
    }
    const UnitRequest& r = instance.requests[i];
    left -= r.output_tokens;
    for (int64_t start = r.arrival;; ++start) {
      const int64_t sum = total + start + r.output_tokens - r.arrival;
      if (sum + left >= best) return;
      bool fits = true;
      for (int64_t j = 1; j <= r.output_tokens; ++j) {
        int64_t& there = held[static_cast<size_t>(start + j)];
        there += r.prompt_tokens + j;
        fits = fits && there <= instance.kv_capacity_tokens;
      }
      if (fits) self(self, i + 1, sum, left);
      for (int64_t j = 1; j <= r.output_tokens; ++j)
        held[static_cast<size_t>(start + j)] -= r.prompt_tokens + j;
    }
  };
  visit(visit, 0, 0, rest);
  return best;
}

// n = 6, M in [12, 20], prompts in [1, 3], outputs in [1, 6].
UnitInstance Small(uint64_t seed, int64_t last_arrival) {
  RandomStream random(seed, 3);
  UnitInstance instance{Between(random, 12, 20), {}};
  for (int i = 0; i < 6; ++i) {
    const int64_t arrival = Between(random, 0, last_arrival);
    instance.requests.push_back({arrival, Between(random, 1, 3), Between(random, 1, 6)});
  }
  return instance;
}

TEST(Hindsight, TwoThatFitNowButNotLater) {
  const HindsightPlan plan = Plan(TwoAlike());
  ASSERT_TRUE(plan.optimum.has_value());
  EXPECT_EQ(plan.optimum->total_latency, 16);
  EXPECT_NEAR(*plan.lp_bound, 108.0 / 7, 1e-6);
  EXPECT_EQ(plan.mc_sf.total_latency, 16);
  EXPECT_THAT(plan.mc_sf.starts, ElementsAre(0, 4));
}

TEST(Hindsight, TheOptimumDelaysWhatMcSfCannot) {
  const HindsightPlan plan = Plan(Five());
  ASSERT_TRUE(plan.optimum.has_value());
  EXPECT_EQ(plan.optimum->total_latency, 22);
  EXPECT_EQ(TotalLatency(Five(), plan.optimum->starts), 22);
  ExpectFits(Five(), plan.optimum->starts);
  EXPECT_NEAR(*plan.lp_bound, 20.7957, 5e-5);
  EXPECT_EQ(plan.mc_sf.total_latency, 23);
  EXPECT_THAT(plan.mc_sf.starts, ElementsAre(3, 0, 0, 4, 2));
  std::vector<int64_t> tokens;
  for (const auto& [round, held] : Occupancy(Five(), plan.mc_sf.starts)) tokens.push_back(held);
  EXPECT_THAT(tokens, ElementsAre(7, 9, 9, 3, 6, 8, 10, 5, 6, 7));
  EXPECT_EQ(plan.fcfs.total_latency, 25);
  EXPECT_EQ(*JudgeStarts(Five(), {2, 0, 0, 3, 3}), 22);
}

TEST(Hindsight, AllThereAtOnce) {
  const HindsightPlan plan = Plan(Four());
  EXPECT_EQ(plan.optimum->total_latency, 20);
  EXPECT_EQ(plan.mc_sf.total_latency, 20);
  EXPECT_EQ(plan.fcfs.total_latency, 22);
  EXPECT_NEAR(*plan.lp_bound, 18.671, 5e-4);
  EXPECT_EQ(plan.area_bound, 16);
}

TEST(Hindsight, ManySmallBesideFewLarge) {  // UT-4b
  const HindsightPlan plan =
      Plan({20, {{0, 17, 1}, {0, 17, 1}, {0, 16, 2}, {0, 1, 3}, {0, 1, 3}, {0, 2, 3}, {0, 1, 4}}});
  EXPECT_EQ(plan.optimum->total_latency, 29);
  EXPECT_EQ(plan.mc_sf.total_latency, 35);
  EXPECT_NEAR(*plan.lp_bound, 24.213, 5e-4);
}

TEST(Hindsight, AgreesWithTryingEverySchedule) {
  for (const int64_t last_arrival : {0, 7}) {
    double ratio = 0, worst = 0;
    int exactly = 0;
    for (uint64_t seed = 0; seed < 40; ++seed) {
      const UnitInstance instance = Small(seed, last_arrival);
      SCOPED_TRACE(seed);
      const int64_t best = TryEverySchedule(instance);
      const HindsightPlan plan = Plan(instance);
      ASSERT_TRUE(plan.optimum.has_value()) << plan.unproven;
      EXPECT_EQ(plan.optimum->total_latency, best);
      EXPECT_EQ(plan.lower_bound, best);
      ExpectFits(instance, plan.optimum->starts);
      EXPECT_EQ(TotalLatency(instance, plan.optimum->starts), best);
      EXPECT_LE(*plan.lp_bound, static_cast<double>(best) + 1e-6);
      EXPECT_LE(plan.area_bound, best);
      EXPECT_EQ(plan.mc_sf.starts, ReferenceRun(instance, true));
      EXPECT_EQ(plan.fcfs.starts, ReferenceRun(instance, false));
      const double r = static_cast<double>(plan.mc_sf.total_latency) / static_cast<double>(best);
      ratio += r / 40;
      worst = std::max(worst, r);
      exactly += plan.mc_sf.total_latency == best;
    }
    // The property of the specification, whose own 40 instances (all at once) gave 1.021, 1.158 and 26.
    EXPECT_LE(ratio, last_arrival == 0 ? 1.024 : 1.011);
    EXPECT_LE(worst, last_arrival == 0 ? 1.167 : 1.126);
    EXPECT_GE(exactly, last_arrival == 0 ? 25 : 32);
  }
}

TEST(Hindsight, PoliciesAreTheReferencesOnTheSyntheticModels) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (const UnitInstance& instance : {SyntheticModel1(seed), SyntheticModel2(seed)}) {
      const auto mc_sf = RunUnitStep(instance, UnitOrder::kShortestOutput);
      EXPECT_EQ(mc_sf, ReferenceRun(instance, true)) << seed;
      EXPECT_EQ(RunUnitStep(instance, UnitOrder::kArrival), ReferenceRun(instance, false)) << seed;
      ExpectFits(instance, mc_sf);
      EXPECT_EQ(*JudgeStarts(instance, mc_sf), TotalLatency(instance, mc_sf));
      const auto improved = ImproveStarts(instance, mc_sf, 200, 1);
      ExpectFits(instance, improved);
      EXPECT_LE(TotalLatency(instance, improved), TotalLatency(instance, mc_sf));
    }
  }
}

// The area bound is stronger than the paper's own, and the formula for arrivals at 0 is what the machine
// gives.
TEST(Hindsight, AreaBoundAtZeroIsItsClosedForm) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const UnitInstance instance = SyntheticModel1(seed);
    std::vector<int64_t> volumes, outputs;
    for (const UnitRequest& r : instance.requests) {
      volumes.push_back(r.prompt_tokens * r.output_tokens + r.output_tokens * (r.output_tokens + 1) / 2);
      outputs.push_back(r.output_tokens);
    }
    std::sort(volumes.begin(), volumes.end());
    std::sort(outputs.begin(), outputs.end());
    int64_t sum = 0, bound = 0;
    const int64_t m = instance.kv_capacity_tokens;
    for (size_t k = 0; k < volumes.size(); ++k) {
      sum += volumes[k];
      bound += std::max(outputs[k], (sum + m - 1) / m);
    }
    EXPECT_EQ(AreaBound(instance), bound);
    EXPECT_LE(bound, TotalLatency(instance, RunUnitStep(instance, UnitOrder::kShortestOutput)));
  }
}

// Ten trials of the experiment that tests/bench/mc_sf_ratio.cc runs at full size, against the optimum of the
// search over rounds. MC-SF is further from it than published (mean 1.005).
TEST(Hindsight, McSfOnTheSyntheticModels) {
  double worst = 0, sum = 0;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    const UnitInstance instance = seed % 2 == 0 ? SyntheticModel1(seed, 6, 8) : SyntheticModel2(seed, 5, 7);
    if (instance.requests.empty()) continue;
    HindsightOptions options;
    options.limits.nodes = 20;
    options.search_trials = 2000;
    options.cut_rounds = 6;
    const HindsightPlan plan = Plan(instance, options);
    SCOPED_TRACE(seed);
    ExpectFits(instance, plan.best.starts);
    EXPECT_EQ(TotalLatency(instance, plan.best.starts), plan.best.total_latency);
    EXPECT_LE(plan.area_bound, plan.lower_bound);
    EXPECT_LE(*plan.lp_bound, static_cast<double>(plan.lower_bound) + 1e-6);
    EXPECT_LE(plan.lower_bound, plan.best.total_latency);
    EXPECT_LE(plan.best.total_latency, plan.mc_sf.total_latency);
    EXPECT_EQ(plan.optimum.has_value(), plan.unproven.empty());
    const int64_t optimum = *RoundSearch(instance).Optimum(plan.best.total_latency, [] { return true; });
    EXPECT_GE(plan.best.total_latency, optimum);
    EXPECT_LE(plan.lower_bound, optimum);
    EXPECT_EQ(plan.optimum ? plan.optimum->total_latency : optimum, optimum);
    const double ratio = static_cast<double>(plan.mc_sf.total_latency) / static_cast<double>(optimum);
    sum += ratio;
    worst = std::max(worst, ratio);
  }
  EXPECT_LE(sum / 10, 1.12);
  EXPECT_LE(worst, 1.25);
}

TEST(Hindsight, CliquesHoldOnlyWhatExcludesEachOther) {
  RandomStream random(17);
  size_t found = 0;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    const UnitInstance instance = SyntheticModel1(seed, 6, 9);
    const std::vector<internal::StartColumn> columns = internal::ColumnsUntil(instance, 60);
    std::vector<double> values;
    for (size_t k = 0; k < columns.size(); ++k)
      values.push_back(random.Below(8) == 0 ? random.Uniform() / 2 : 0.0);
    for (const auto& clique : internal::ViolatedCliques(instance, columns, values, 20)) {
      ++found;
      double sum = 0;
      for (const size_t a : clique) sum += values[a];
      EXPECT_GT(sum, 1.0);
      for (const size_t a : clique) {
        for (const size_t b : clique) {
          if (columns[a].request >= columns[b].request) continue;
          // The two alone, judged by the definition.
          const UnitInstance pair{
              instance.kv_capacity_tokens,
              {instance.requests[columns[a].request], instance.requests[columns[b].request]}};
          EXPECT_FALSE(JudgeStarts(pair, {columns[a].start, columns[b].start}).ok());
        }
      }
    }
  }
  EXPECT_GT(found, 20u);
}

TEST(Hindsight, TooLargeForTheSolverStillHasItsBounds) {
  HindsightOptions options;
  options.max_requests = 3;
  HindsightPlan plan = Plan(Four(), options);
  EXPECT_FALSE(plan.optimum.has_value());
  EXPECT_THAT(plan.unproven, HasSubstr("4 requests, at most 3"));
  EXPECT_NEAR(*plan.lp_bound, 18.671, 5e-4);
  EXPECT_EQ(plan.lower_bound, 19);
  options.max_lp_terms = 10;
  plan = Plan(Four(), options);
  EXPECT_FALSE(plan.lp_bound.has_value());
  EXPECT_THAT(plan.unproven, HasSubstr("too large"));
  EXPECT_LE(*plan.dual_bound, 18.671 + 5e-4);
  EXPECT_GE(*plan.dual_bound, 18.6);
  EXPECT_EQ(plan.lower_bound, 19);

  UnitInstance many{100'000, {}};
  RandomStream random(5);
  for (int i = 0; i < 20'000; ++i)
    many.requests.push_back(
        {Between(random, 0, 50'000'000), Between(random, 1, 500), Between(random, 1, 500)});
  plan = Plan(many);
  EXPECT_FALSE(plan.optimum.has_value());
  EXPECT_GE(plan.mc_sf.total_latency, plan.area_bound);
}

TEST(Hindsight, TheDualBoundComesUpToTheLinearProgram) {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    SCOPED_TRACE(seed);
    const UnitInstance instance = seed % 2 == 0 ? SyntheticModel1(seed, 7, 12) : SyntheticModel2(seed, 7, 12);
    HindsightOptions options;
    options.exact = false;
    const double lp = *Plan(instance, options).lp_bound;
    options.max_lp_terms = 0;
    const HindsightPlan plan = Plan(instance, options);
    EXPECT_LE(*plan.dual_bound, lp * (1 + 1e-9));
    EXPECT_GE(*plan.dual_bound, lp * 0.995);
    EXPECT_LE(DualBound(instance, 1, 50), lp * (1 + 1e-9));  // few prices are a bound as well
  }
}

TEST(Hindsight, NothingToDo) {
  const HindsightPlan plan = Plan({5, {}});
  ASSERT_TRUE(plan.optimum.has_value());
  EXPECT_EQ(plan.optimum->total_latency, 0);
  EXPECT_EQ(Plan({2, {{1'000, 1, 1}}}).optimum->total_latency, 1);
}

TEST(Hindsight, BadInstancesAreNamed) {
  const auto status = [](const UnitInstance& instance) { return PlanHindsight(instance).status(); };
  EXPECT_EQ(status({10, {{0, 5, 6}}}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status({10, {{0, 1, 1}, {0, 5, 6}}}).message()), HasSubstr("requests[1]"));
  EXPECT_THAT(std::string(status({10, {{-1, 1, 1}}}).message()), HasSubstr("arrival"));
  EXPECT_THAT(std::string(status({10, {{0, 1, 0}}}).message()), HasSubstr("output_tokens"));
  EXPECT_THAT(std::string(status({0, {}}).message()), HasSubstr("kv_capacity_tokens"));
  EXPECT_EQ(status({10, std::vector<UnitRequest>(kMaxUnitRequests + 1)}).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(JudgeStarts(TwoAlike(), {0, 0}).ok());
  EXPECT_FALSE(JudgeStarts(TwoAlike(), {-1, 4}).ok());
  EXPECT_FALSE(JudgeStarts(TwoAlike(), {0}).ok());
}

}  // namespace
}  // namespace orrery
