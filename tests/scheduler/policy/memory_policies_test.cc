// The worked examples of the papers (UT-1, UT-3, UT-4 of the design) in the unit-step model, and what the
// memory policies do with blocks, budgets and waiting.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/policy/a_min.h"
#include "scheduler/policy/mc_sf.h"
#include "scheduler/policy/past_future.h"
#include "scheduler/policy/sorted_f.h"
#include "scheduler/policy/sorted_f_order.h"
#include "scheduler/predict/interval.h"
#include "tests/scheduler/policy/unit_step_model.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;

// The paper's rule: no aging, no margin, true lengths.
McSfOptions PlainMcSf() { return {.quantile = 1, .protection = 0, .aging = 0}; }

UnitRun RunMcSf(int32_t memory, const std::vector<UnitJob>& jobs, const McSfOptions& options) {
  McSfPolicy policy(options);
  return RunUnitSteps({.memory = memory}, jobs, &policy);
}

std::vector<int32_t> FirstStarts(const UnitRun& run) {
  std::vector<int32_t> starts;
  for (const auto& of_job : run.starts) starts.push_back(of_job.front());
  return starts;
}

TEST(McSf, Ut1aLooksAhead) {
  const std::vector<UnitJob> jobs = {{0, 1, 6}, {0, 1, 6}};
  const UnitRun run = RunMcSf(10, jobs, PlainMcSf());
  EXPECT_THAT(FirstStarts(run), ElementsAre(0, 4));
  EXPECT_EQ(run.total_latency, 16);
  EXPECT_EQ(OptimalLatency(10, jobs), 16);
  EXPECT_FALSE(run.overflow);
}

TEST(McSf, Ut1bDoesNotWaitForTheSmallOne) {
  const UnitRun run = RunMcSf(10, {{0, 2, 4}, {0, 2, 2}, {0, 3, 3}, {0, 1, 6}, {2, 2, 1}}, PlainMcSf());
  EXPECT_THAT(FirstStarts(run), ElementsAre(3, 0, 0, 4, 2));
  EXPECT_EQ(run.total_latency, 23);
  EXPECT_THAT(run.occupancy, ElementsAre(7, 9, 9, 3, 6, 8, 10, 5, 6, 7));
  EXPECT_EQ(run.preemptions, 0);
}

TEST(McSf, Ut1cIsOptimalWithoutIt) {
  const std::vector<UnitJob> jobs = {{0, 2, 4}, {0, 2, 2}, {0, 3, 3}, {0, 1, 6}};
  EXPECT_EQ(RunMcSf(10, jobs, PlainMcSf()).total_latency, 20);
  EXPECT_EQ(OptimalLatency(10, jobs), 20);
}

// n = 6, M in [12, 20], s in [1, 3], o in [1, 6], all at 0, against the exhaustive optimum.
TEST(McSf, FortySmallInstancesNearTheOptimum) {
  RandomStream random(40);
  const auto between = [&](int32_t low, int32_t high) {
    return low + static_cast<int32_t>(random.Below(static_cast<uint64_t>(high - low + 1)));
  };
  double sum = 0, worst = 0;
  int optimal = 0;
  for (int instance = 0; instance < 40; ++instance) {
    const int32_t memory = between(12, 20);
    std::vector<UnitJob> jobs(6);
    for (UnitJob& job : jobs) job = {0, between(1, 3), between(1, 6)};
    const UnitRun run = RunMcSf(memory, jobs, PlainMcSf());
    ASSERT_FALSE(run.overflow);
    const int64_t best = OptimalLatency(memory, jobs);
    ASSERT_GE(run.total_latency, best);
    const double ratio = static_cast<double>(run.total_latency) / static_cast<double>(best);
    sum += ratio;
    worst = std::max(worst, ratio);
    optimal += run.total_latency == best;
  }
  EXPECT_LE(sum / 40, 1.03);
  EXPECT_LE(worst, 1.17);
  EXPECT_GE(optimal, 22);
  RecordProperty("mean_ratio", std::to_string(sum / 40));
  RecordProperty("optimal", optimal);
}

TEST(McSf, SkippingServesSmallWorkBehindALargePrompt) {
  // The second has the shorter output but its prompt does not fit beside the first.
  const std::vector<UnitJob> jobs = {{0, 10, 2}, {0, 16, 3}, {0, 1, 4}};
  EXPECT_THAT(FirstStarts(RunMcSf(20, jobs, PlainMcSf())), ElementsAre(0, 2, 5));
  McSfOptions skip = PlainMcSf();
  skip.skip = true;
  EXPECT_THAT(FirstStarts(RunMcSf(20, jobs, skip)), ElementsAre(0, 4, 0));
  skip.patience_s = 0;
  EXPECT_THAT(FirstStarts(RunMcSf(20, jobs, skip)), ElementsAre(0, 2, 5)) << "nobody is passed over";
}

TEST(McSf, ProtectionLeavesAMargin) {
  McSfOptions options = PlainMcSf();
  options.protection = 0.5;
  EXPECT_THAT(FirstStarts(RunMcSf(20, {{0, 1, 6}, {0, 1, 6}}, options)), ElementsAre(0, 4))
      << "ten of twenty tokens, as in UT-1a";
  EXPECT_THAT(FirstStarts(RunMcSf(20, {{0, 12, 6}}, options)), ElementsAre(0)) << "alone, anything may run";
}

TEST(McSf, AgingLetsTheLongOneIn) {
  // A stream of short jobs that keeps the memory full; without aging the long one comes last.
  std::vector<UnitJob> jobs = {{0, 10, 8}};
  for (int32_t round = 0; round < 60; ++round) jobs.push_back({round, 9, 1});
  McSfOptions options = PlainMcSf();
  EXPECT_GE(RunMcSf(20, jobs, options).starts[0][0], 59);
  options.aging = 1000;  // a token per round
  EXPECT_LE(RunMcSf(20, jobs, options).starts[0][0], 20);
}

// Lengths that nobody foresees: never more than memory, everybody ends.
TEST(McSf, SurvivesPredictionsThatAreTooLow) {
  const IntervalPredictor one_token({.low = 1, .high = 1, .alpha = 0});
  RandomStream random(3);
  int32_t preemptions = 0;
  for (int instance = 0; instance < 200; ++instance) {
    std::vector<UnitJob> jobs;
    for (int i = 0; i < 8; ++i) {
      jobs.push_back({static_cast<int32_t>(random.Below(10)), static_cast<int32_t>(1 + random.Below(5)),
                      static_cast<int32_t>(1 + random.Below(10))});
    }
    McSfPolicy policy(PlainMcSf());
    const UnitRun run = RunUnitSteps({.memory = 15, .bound = 10, .predictor = &one_token}, jobs, &policy);
    ASSERT_FALSE(run.overflow);
    ASSERT_THAT(run.completions, ::testing::Each(::testing::Gt(0)));
    preemptions += run.preemptions;
  }
  EXPECT_GT(preemptions, 100);
}

// A_min of the paper forgets what a preempted job generated, but not that its output is at least that long.
class LowerBound final : public LengthPredictor {
 public:
  explicit LowerBound(int32_t low) : low_(low) {}
  int32_t Quantile(const SequenceView& view, double) const override {
    int32_t& known = known_[view.id];
    known = std::max({known, low_, view.num_generated});
    return known;
  }
  void OnFinished(const SequenceView&) override {}

 private:
  int32_t low_;
  mutable std::map<SequenceId, int32_t> known_;
};

UnitRun RunAMin(const std::vector<UnitJob>& jobs) {
  const LowerBound lower(2);
  AMinPolicy policy({.aging = 0});
  return RunUnitSteps({.memory = 10, .bound = 6, .predictor = &lower}, jobs, &policy);
}

TEST(AMin, Ut3aNeedsNoEviction) {
  const std::vector<UnitJob> jobs = {{0, 1, 2}, {0, 1, 3}, {0, 1, 6}, {0, 1, 2}};
  const UnitRun run = RunAMin(jobs);
  EXPECT_EQ(run.total_latency, 15);
  EXPECT_THAT(FirstStarts(run), ElementsAre(0, 0, 0, 2));
  EXPECT_EQ(run.preemptions, 0);
  EXPECT_EQ(OptimalLatency(10, jobs), 15);
  EXPECT_EQ(RunMcSf(10, jobs, PlainMcSf()).total_latency, 15) << "H-SF, which knows the lengths";
  // A_max: mc-sf with the upper bound of the interval.
  McSfPolicy upper(PlainMcSf());
  const UnitRun a_max = RunUnitSteps({.memory = 10, .bound = 6}, jobs, &upper);
  EXPECT_EQ(a_max.total_latency, 29);
  EXPECT_THAT(FirstStarts(a_max), ElementsAre(0, 2, 5, 9));
}

TEST(AMin, Ut3bEvictsTheLeastProgress) {
  const std::vector<UnitJob> jobs = {{0, 1, 6}, {0, 1, 2}, {0, 1, 6}, {0, 1, 2}};
  const UnitRun run = RunAMin(jobs);
  EXPECT_EQ(run.preemptions, 3);
  EXPECT_THAT(run.completions, ElementsAre(10, 2, 6, 8));
  EXPECT_EQ(run.total_latency, 26);
  EXPECT_THAT(run.starts[0], ElementsAre(0, 4));
  EXPECT_THAT(run.starts[3], ElementsAre(2, 4, 6));
  EXPECT_EQ(RunMcSf(10, jobs, PlainMcSf()).total_latency, 20);
  McSfPolicy upper(PlainMcSf());
  EXPECT_EQ(RunUnitSteps({.memory = 10, .bound = 6}, jobs, &upper).total_latency, 36);
}

UnitRun RunSortedF(int32_t memory, const std::vector<UnitJob>& jobs) {
  SortedFPolicy policy({});
  return RunUnitSteps({.memory = memory}, jobs, &policy);
}

TEST(SortedF, Ut4aManySmallBeforeFewLarge) {
  std::vector<UnitJob> jobs(6, {0, 62, 1});
  jobs.insert(jobs.end(), 15, {0, 1, 3});
  EXPECT_EQ(RunSortedF(64, jobs).total_latency, 84);
  EXPECT_EQ(RunMcSf(64, jobs, PlainMcSf()).total_latency, 156) << "shortest first";
}

TEST(SortedF, Ut4bBatchesOfLeastF) {
  const std::vector<UnitJob> jobs = {{0, 17, 1}, {0, 17, 1}, {0, 16, 2}, {0, 1, 3},
                                     {0, 1, 3},  {0, 2, 3},  {0, 1, 4}};
  std::vector<SortedFOrder::Job> backlog;
  for (const UnitJob& job : jobs) backlog.push_back({job.prompt, job.output});
  SortedFOrder order;
  EXPECT_THAT(order.Compute(backlog, 20), ElementsAre(3, 4, 5, 6, 0, 1, 2));
  EXPECT_THAT(order.batch_ends(), ElementsAre(4, 5, 6, 7));
  EXPECT_EQ(RunSortedF(20, jobs).total_latency, 32);
  EXPECT_EQ(RunMcSf(20, jobs, PlainMcSf()).total_latency, 35);
  EXPECT_EQ(OptimalLatency(20, jobs), 29);
}

// The first batch beside the best of all subsets.
TEST(SortedF, FirstBatchIsCloseToTheBestSubset) {
  RandomStream random(11);
  int exact = 0;
  for (int instance = 0; instance < 300; ++instance) {
    std::vector<SortedFOrder::Job> jobs(9);
    for (auto& job : jobs) {
      job = {static_cast<int64_t>(1 + random.Below(12)), static_cast<int64_t>(1 + random.Below(9))};
    }
    SortedFOrder order;
    const auto result = order.Compute(jobs, 30);
    std::vector<int32_t> seen(result.begin(), result.end());
    std::sort(seen.begin(), seen.end());
    std::vector<int32_t> all(9);
    std::iota(all.begin(), all.end(), 0);
    ASSERT_EQ(seen, all) << "a permutation";
    double first = 0;
    const auto end = order.batch_ends()[0];
    for (int32_t i = 0; i < end; ++i)
      first += static_cast<double>(jobs[static_cast<size_t>(result[static_cast<size_t>(i)])].output);
    first /= static_cast<double>(end) * end;
    double best = 1e9;
    for (unsigned subset = 1; subset < 512; ++subset) {
      int64_t size = 0, outputs = 0, count = 0;
      for (size_t i = 0; i < 9; ++i) {
        if (!(subset >> i & 1)) continue;
        size += jobs[i].prompt + jobs[i].output;
        outputs += jobs[i].output;
        ++count;
      }
      if (size <= 30)
        best = std::min(best, static_cast<double>(outputs) / static_cast<double>(count * count));
    }
    ASSERT_GE(first, best - 1e-12);
    EXPECT_LE(first, 1.6 * best);
    exact += first <= best + 1e-12;
  }
  EXPECT_GT(exact, 200);
}

TEST(SortedF, PatienceGoesBeforeBatches) {
  std::vector<UnitJob> jobs = {{0, 14, 6}};
  for (int32_t round = 0; round < 80; ++round) jobs.push_back({round, 8, 2});
  SortedFPolicy never({.replan_arrivals = 1, .patience_s = 1e6});
  EXPECT_GE(RunUnitSteps({.memory = 20}, jobs, &never).starts[0][0], 79);
  SortedFPolicy soon({.replan_arrivals = 1, .patience_s = 0.010});
  EXPECT_LE(RunUnitSteps({.memory = 20}, jobs, &soon).starts[0][0], 15);
}

TEST(PastFuture, KnownLengthsFillTheMemoryInArrivalOrder) {
  // One possible length: every draw is the truth; arrival order with the future peak.
  const IntervalPredictor truth({.low = 1, .high = 0, .alpha = 1});
  PastFuturePolicy policy({.reserve = 0});
  const std::vector<UnitJob> jobs = {{0, 2, 6}, {0, 2, 6}, {0, 1, 6}};
  const UnitRun run = RunUnitSteps({.memory = 12, .predictor = &truth}, jobs, &policy);
  EXPECT_THAT(FirstStarts(run), ElementsAre(0, 4, 7));
  EXPECT_EQ(run.preemptions, 0);
}

// UT-1b and UT-1c again: arrival order with the check of Eq. 5.
TEST(PastFuture, ArrivalOrderWithTheCheckIsTheBenchmarkOfMcSf) {
  std::vector<UnitJob> jobs = {{0, 2, 4}, {0, 2, 2}, {0, 3, 3}, {0, 1, 6}, {2, 2, 1}};
  PastFuturePolicy with_e({.reserve = 0});
  EXPECT_EQ(RunUnitSteps({.memory = 10}, jobs, &with_e).total_latency, 25);
  jobs.pop_back();
  PastFuturePolicy without_e({.reserve = 0});
  EXPECT_EQ(RunUnitSteps({.memory = 10}, jobs, &without_e).total_latency, 22);
}

TEST(PastFuture, ReserveAndMoreListsAreMoreCautious) {
  const IntervalPredictor wide({.low = 1, .high = 0, .alpha = 0});
  RandomStream random(5);
  std::vector<UnitJob> jobs;
  for (int i = 0; i < 60; ++i) {
    jobs.push_back(
        {i, static_cast<int32_t>(1 + random.Below(4)), static_cast<int32_t>(5 + random.Below(25))});
  }
  const auto preemptions = [&](double reserve, int32_t lists) {
    int32_t total = 0;
    for (int32_t seed = 0; seed < 20; ++seed) {
      PastFuturePolicy policy({.reserve = reserve, .max_lists = lists, .seed = seed});
      const UnitRun run =
          RunUnitSteps({.memory = 100, .bound = 30, .predictor = &wide, .restart = false}, jobs, &policy);
      EXPECT_FALSE(run.overflow);
      total += run.preemptions;
    }
    return total;
  };
  const int32_t bold = preemptions(0, 1);
  EXPECT_GT(bold, 0);
  EXPECT_LT(preemptions(0, 5), bold);
  EXPECT_LT(preemptions(0.3, 1), bold);
}

// A view of a worker in blocks of 16, for what the unit-step model does not have.
SequenceView Waits(uint64_t id, int32_t prompt, int32_t max_new, int32_t cached = 0, int32_t held = 0) {
  SequenceView view;
  view.id = SequenceId{id};
  view.num_prompt = view.num_tokens = prompt;
  view.max_new_tokens = max_new;
  view.cached_tokens = cached;
  view.shared_blocks = held;
  return view;
}

std::vector<std::string> Decide(const std::vector<SequenceView>& running,
                                const std::vector<SequenceView>& waiting, int32_t blocks_free,
                                int32_t blocks_total, int32_t step_tokens) {
  McSfPolicy policy(PlainMcSf());
  WorkerView view;
  view.running = running;
  view.waiting = waiting;
  view.blocks_free = blocks_free;
  view.blocks_total = blocks_total;
  view.free_slots = 8;
  view.limits = {.max_step_tokens = step_tokens, .max_num_seqs = 8, .block_tokens = 16};
  BatchDecision decision;
  policy.Plan(view, Time{}, &decision);
  std::vector<std::string> words;
  for (const Grant& grant : decision.run) {
    words.push_back("run " + std::to_string(Value(grant.sequence)) + ":" + std::to_string(grant.count));
  }
  for (const Grant& grant : decision.admit) {
    words.push_back("admit " + std::to_string(Value(grant.sequence)) + ":" + std::to_string(grant.count));
  }
  return words;
}

TEST(McSf, CountsInBlocks) {
  // 16 tokens of KV at the end each: one block. With a prompt token more, two.
  EXPECT_THAT(Decide({}, {Waits(1, 10, 7), Waits(2, 10, 7)}, 2, 2, 100),
              ElementsAre("admit 1:10", "admit 2:10"));
  EXPECT_THAT(Decide({}, {Waits(1, 10, 7), Waits(2, 11, 7)}, 2, 2, 100), ElementsAre("admit 1:10"));
}

TEST(McSf, SharedPrefixIsNotCountedTwice) {
  SequenceView running = Waits(1, 40, 8);
  running.first_scheduled = Time{};
  running.num_generated = 1;
  running.num_tokens = 41;
  running.num_computed = 40;
  running.num_blocks = 3;
  running.shared_blocks = 0;
  // Two of the three blocks are the candidate's prefix as well.
  EXPECT_THAT(Decide({running}, {Waits(2, 40, 8, 32, 2)}, 1, 4, 100), ElementsAre("run 1:1", "admit 2:8"));
  EXPECT_THAT(Decide({running}, {Waits(2, 40, 8)}, 1, 4, 100), ElementsAre("run 1:1"));
}

TEST(McSf, PromptsAreChunkedBehindDecodes) {
  EXPECT_THAT(Decide({}, {Waits(1, 50, 8), Waits(2, 50, 9)}, 20, 20, 60),
              ElementsAre("admit 1:50", "admit 2:10"));
  EXPECT_THAT(Decide({}, {Waits(1, 100, 8), Waits(2, 50, 9)}, 20, 20, 60), ElementsAre("admit 1:60"));
}

}  // namespace
}  // namespace orrery
