// BF-IO against the numbers of the design document, a mixed-integer program, and random views.
#include "router/policy/bf_io.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "router/policy/balance_score.h"
#include "router/policy/registry.h"
#include "scheduler/base/random.h"
#include "scheduler/solver/solver.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;

struct Instance {
  std::vector<int64_t> loads;
  std::vector<int32_t> slots;
  std::vector<int32_t> sizes;  // waiting, in order of arrival
};

std::vector<WorkerLoad> Workers(const Instance& instance, int64_t step = 0) {
  std::vector<WorkerLoad> workers;
  for (uint32_t g = 0; g < instance.loads.size(); ++g) {
    workers.push_back({.worker = WorkerId{g},
                       .accepts = true,
                       .kv_tokens = instance.loads[g],
                       .free_slots = instance.slots[g],
                       .kv_capacity_tokens = 1 << 20,
                       .max_context = 1 << 20,
                       .step = step});
  }
  return workers;
}

std::vector<Waiting> Pool(const std::vector<int32_t>& sizes) {
  std::vector<Waiting> waiting;
  for (uint64_t i = 0; i < sizes.size(); ++i) {
    waiting.push_back({.request = RequestId{i + 1},
                       .arrival = Time{} + Duration::Nanoseconds(static_cast<int64_t>(i)),
                       .prompt_tokens = sizes[i],
                       .max_new_tokens = 10});
  }
  return waiting;
}

Assignment Decide(RoutePolicy* policy, const std::vector<WorkerLoad>& workers,
                  const std::vector<Waiting>& waiting, absl::Span<const Leaving> leaving = {}) {
  Assignment assignment;
  policy->Assign({.workers = workers, .leaving = leaving}, waiting, Time{}, &assignment);
  return assignment;
}

std::vector<int64_t> LoadsAfter(const Instance& instance, const Assignment& assignment) {
  std::vector<int64_t> loads = instance.loads;
  for (const Placement& placement : assignment.placements) {
    loads[Value(placement.worker)] += instance.sizes[Value(placement.request) - 1];
  }
  return loads;
}

int64_t Imbalance(const std::vector<int64_t>& loads) {
  return static_cast<int64_t>(loads.size()) * *std::max_element(loads.begin(), loads.end()) -
         std::accumulate(loads.begin(), loads.end(), int64_t{0});
}

std::unique_ptr<RoutePolicy> Policy(const std::string& spec) {
  auto policy = NewRoutePolicy(spec);
  EXPECT_TRUE(policy.ok()) << policy.status();
  return *std::move(policy);
}

TEST(BalanceScore, IsTheMarginalFormOfTheImbalance) {
  const int64_t margin[] = {1000};
  const double weight[] = {1};
  const std::map<int64_t, double> expected = {{500, 500}, {1000, 1000}, {1100, 300},
                                              {1142, 6},  {1143, -1},   {1500, -2500}};
  for (const auto& [size, score] : expected) {
    EXPECT_DOUBLE_EQ(BalanceScore(margin, weight, 8, size), score) << size;
  }
  EXPECT_EQ(PeakSize(margin, weight, 8), 1000);
}

TEST(BalanceScore, PenaltiesOfBalanceRoute) {
  const double weights[] = {1, std::pow(0.9, 5), std::pow(0.9, 10), std::pow(0.9, 50)};
  const double sum = weights[0] + weights[1] + weights[2] + weights[3];
  const int64_t a[] = {0, 190, 1590, 1250}, b[] = {1400, 0, 0, 0};
  EXPECT_NEAR(500 * sum - BalanceScore(a, weights, 8, 500), 5464.4, 0.05);
  EXPECT_NEAR(500 * sum - BalanceScore(b, weights, 8, 500), 3777.3, 0.05);
}

TEST(BalanceScore, NumbersOfTheArtifact) {
  const int64_t margins[] = {120, 80, 200, 0};
  const double weights[] = {1, .86, .86 * .86, .86 * .86 * .86};
  EXPECT_NEAR(BalanceScore(margins, weights, 43, 50), -1205.74, 0.01);
  EXPECT_NEAR(BalanceScore(margins, weights, 43, 80), -1929.18, 0.01);
  EXPECT_NEAR(BalanceScore(margins, weights, 43, 100), -3151.08, 0.01);
  EXPECT_NEAR(BalanceScore(margins, weights, 43, 150), -7495.81, 0.01);
}

TEST(BalanceScore, PeakIsWhereTheScoreIsGreatest) {
  RandomStream random(3);
  for (int i = 0; i < 500; ++i) {
    std::vector<int64_t> margins;
    std::vector<double> weights;
    const uint64_t count = 1 + random.Below(11);
    for (uint64_t h = 0; h < count; ++h) {
      margins.push_back(static_cast<int64_t>(random.Below(60)));
      weights.push_back(std::pow(0.86, static_cast<double>(h)));
    }
    const double beta = 1.5 + 6 * random.Uniform();
    const int64_t peak = PeakSize(margins, weights, beta);
    for (int64_t size = 0; size < 80; ++size) {
      EXPECT_LE(BalanceScore(margins, weights, beta, size),
                BalanceScore(margins, weights, beta, peak) + 1e-9);
    }
  }
}

TEST(SizeIndex, FindsWhatASetFinds) {
  RandomStream random(11);
  for (int round = 0; round < 50; ++round) {
    SizeIndex index;
    std::set<int32_t> present;
    const auto count = static_cast<int32_t>(1 + random.Below(300));
    for (int32_t i = 0; i < count; ++i) {
      index.Add(static_cast<int32_t>(random.Below(40)), static_cast<uint32_t>(i));
      present.insert(i);
    }
    index.Seal();
    for (int32_t rank = 1; rank < count; ++rank) {
      const bool ordered =
          index.size(rank - 1) < index.size(rank) ||
          (index.size(rank - 1) == index.size(rank) && index.position(rank - 1) > index.position(rank));
      ASSERT_TRUE(ordered) << rank;
    }
    while (!present.empty()) {
      const auto rank = static_cast<int32_t>(random.Below(static_cast<uint64_t>(count) + 1));
      const auto at = present.lower_bound(rank);
      EXPECT_EQ(index.From(rank), at == present.end() ? SizeIndex::kNone : *at);
      EXPECT_EQ(index.Before(rank), at == present.begin() ? SizeIndex::kNone : *std::prev(at));
      const auto size = static_cast<int64_t>(random.Below(42)) - 1;
      int32_t above = 0;
      while (above < count && index.size(above) <= size) ++above;
      EXPECT_EQ(index.RankAbove(size), above);
      const int32_t taken = at == present.end() ? *present.begin() : *at;
      index.Take(taken);
      present.erase(taken);
    }
    EXPECT_EQ(index.From(0), SizeIndex::kNone);
    EXPECT_EQ(index.Before(count), SizeIndex::kNone);
    index.Restore();
    EXPECT_EQ(index.From(0), 0);
    EXPECT_EQ(index.Before(count), count - 1);
  }
}

const Instance kFirst = {{10, 7}, {1, 2}, {5, 4, 2, 1}};
const Instance kSecond = {{30, 22, 25}, {1, 2, 1}, {9, 7, 4, 3, 1}};

TEST(BfIo, GreedyTakesTheLightestFirst) {
  auto policy = Policy("bf-io:age=0,refine=0");
  const Assignment first = Decide(policy.get(), Workers(kFirst), Pool(kFirst.sizes));
  EXPECT_THAT(LoadsAfter(kFirst, first), ElementsAre(11, 13));
  EXPECT_EQ(first.why.value, 2);
  const Assignment second = Decide(policy.get(), Workers(kSecond), Pool(kSecond.sizes));
  EXPECT_THAT(LoadsAfter(kSecond, second), ElementsAre(33, 30, 29));
  EXPECT_EQ(second.why.value, 7);
}

TEST(BfIo, TwoLevelsFindTheOptimum) {
  auto policy = Policy("bf-io:age=0");
  const Assignment first = Decide(policy.get(), Workers(kFirst), Pool(kFirst.sizes));
  EXPECT_EQ(Imbalance(LoadsAfter(kFirst, first)), 0);
  EXPECT_EQ(first.why.bound, 0);
  const Assignment second = Decide(policy.get(), Workers(kSecond), Pool(kSecond.sizes));
  EXPECT_THAT(LoadsAfter(kSecond, second), ElementsAre(33, 32, 32));
  EXPECT_EQ(second.why.value, 2);
  EXPECT_LE(second.why.bound, 2);
}

// The step's integer program as it is written down, solved exactly.
int64_t Optimum(const Instance& instance) {
  const size_t workers = instance.loads.size(), sizes = instance.sizes.size();
  const double total = static_cast<double>(workers);
  const int64_t slots = std::accumulate(instance.slots.begin(), instance.slots.end(), int64_t{0});
  const auto placed = static_cast<double>(std::min<int64_t>(slots, static_cast<int64_t>(sizes)));
  LinearProgram program(Sense::kMinimize);
  const VariableId envelope = program.Add(Variable{.name = "Z", .objective = total});
  const ConstraintId all = program.Add(Constraint{"all", placed, placed});
  std::vector<ConstraintId> once;
  for (size_t i = 0; i < sizes; ++i) once.push_back(program.Add(Constraint{.name = "once", .upper = 1}));
  for (size_t g = 0; g < workers; ++g) {
    const auto load = static_cast<double>(instance.loads[g]);
    const ConstraintId below = program.Add(Constraint{.name = "below", .lower = load});
    const ConstraintId room = program.Add(Constraint{.name = "slots", .upper = 1.0 * instance.slots[g]});
    program.AddTerm(below, envelope, 1);
    for (size_t i = 0; i < sizes; ++i) {
      const VariableId x = program.Add(
          Variable{.name = "x", .upper = 1, .objective = -1.0 * instance.sizes[i], .integer = true});
      program.AddTerm(below, x, -1.0 * instance.sizes[i]);
      program.AddTerm(room, x, 1);
      program.AddTerm(all, x, 1);
      program.AddTerm(once[i], x, 1);
    }
  }
  const auto solution = SolveMip(program);
  EXPECT_TRUE(solution.ok()) << solution.status();
  EXPECT_EQ(solution->status, SolveStatus::kOptimal);
  const int64_t sum = std::accumulate(instance.loads.begin(), instance.loads.end(), int64_t{0});
  return std::llround(solution->objective) - sum;
}

Instance RandomInstance(RandomStream* random) {
  Instance instance;
  for (int g = 0; g < 3; ++g) instance.loads.push_back(static_cast<int64_t>(random->Below(41)));
  instance.slots.assign(3, 0);
  const uint64_t slots = 1 + random->Below(6);
  for (uint64_t i = 0; i < slots; ++i) ++instance.slots[random->Below(3)];
  const uint64_t waiting = 1 + random->Below(6);
  for (uint64_t i = 0; i < waiting; ++i)
    instance.sizes.push_back(static_cast<int32_t>(1 + random->Below(12)));
  return instance;
}

TEST(BfIo, IsNearTheExactOptimumOfTinyInstances) {
  auto greedy = Policy("bf-io:age=0,refine=0"), both = Policy("bf-io:age=0");
  RandomStream random(1);
  constexpr int kInstances = 400;
  int optimal = 0;
  int64_t sum_optimum = 0, sum_greedy = 0, sum_both = 0;
  for (int i = 0; i < kInstances; ++i) {
    const Instance instance = RandomInstance(&random);
    const Assignment first = Decide(greedy.get(), Workers(instance), Pool(instance.sizes));
    const Assignment best = Decide(both.get(), Workers(instance), Pool(instance.sizes));
    const int64_t optimum = Optimum(instance), j = Imbalance(LoadsAfter(instance, best));
    const int64_t j_greedy = Imbalance(LoadsAfter(instance, first));
    EXPECT_EQ(best.why.value, static_cast<double>(j));
    EXPECT_EQ(best.placements.size(), first.placements.size());
    EXPECT_LE(best.why.bound, static_cast<double>(optimum)) << i;
    EXPECT_GE(j, optimum) << i;
    EXPECT_LE(j, j_greedy) << i;
    optimal += j == optimum;
    sum_optimum += optimum;
    sum_greedy += j_greedy;
    sum_both += j;
  }
  RecordProperty("optimal", optimal);
  std::printf("optimal in %d of %d; mean J: optimum %.1f, two levels %.1f, greedy %.1f\n", optimal,
              kInstances, static_cast<double>(sum_optimum) / kInstances,
              static_cast<double>(sum_both) / kInstances, static_cast<double>(sum_greedy) / kInstances);
  EXPECT_GE(optimal, kInstances * 7 / 10);
  EXPECT_LE(static_cast<double>(sum_both), 1.15 * static_cast<double>(sum_optimum));
}

TEST(BfIo, ServesTheOldestOnASingleWorker) {
  auto policy = Policy("bf-io:age=0");
  const Instance instance = {{50}, {2}, {3, 9, 1, 7}};
  const Assignment assignment = Decide(policy.get(), Workers(instance), Pool(instance.sizes));
  ASSERT_EQ(assignment.placements.size(), 2u);
  EXPECT_THAT(LoadsAfter(instance, assignment), ElementsAre(62));
}

TEST(BfIo, ChoosesAmongTheOldestOfThePool) {
  auto policy = Policy("bf-io:age=0,pool=2");
  const Instance instance = {{10, 5}, {0, 1}, {1, 2, 5}};
  EXPECT_THAT(LoadsAfter(instance, Decide(policy.get(), Workers(instance), Pool(instance.sizes))),
              ElementsAre(10, 7));
  policy = Policy("bf-io:age=0");
  EXPECT_THAT(LoadsAfter(instance, Decide(policy.get(), Workers(instance), Pool(instance.sizes))),
              ElementsAre(10, 10));
}

TEST(BfIo, OfEqualSizesTheOldestIsTaken) {
  auto policy = Policy("bf-io:age=0");
  const Instance under = {{10, 5}, {0, 1}, {4, 4, 4}}, above = {{10, 10}, {0, 1}, {4, 4, 4}};
  for (const Instance& instance : {under, above}) {
    const Assignment assignment = Decide(policy.get(), Workers(instance), Pool(instance.sizes));
    ASSERT_EQ(assignment.placements.size(), 1u);
    EXPECT_EQ(assignment.placements[0].request, RequestId{1});
  }
}

// The first request never fits under the envelope; from step `age` + 1 on it goes first all the same.
TEST(BfIo, WhoIsDueGoesFirst) {
  auto policy = Policy("bf-io:age=3");
  const Instance instance = {{100, 90}, {0, 1}, {1000, 10, 10, 10, 10, 10, 10}};
  std::vector<Waiting> waiting = Pool(instance.sizes);
  for (int64_t step = 5; step < 9; ++step) {
    const Assignment assignment = Decide(policy.get(), Workers(instance, step), waiting);
    ASSERT_EQ(assignment.placements.size(), 1u);
    EXPECT_EQ(assignment.placements[0].request, waiting[1].request) << step;
    waiting.erase(waiting.begin() + 1);
  }
  const Assignment due = Decide(policy.get(), Workers(instance, 9), waiting);
  ASSERT_EQ(due.placements.size(), 1u);
  EXPECT_EQ(due.placements[0].request, waiting[0].request);
}

TEST(BfIo, WhoIsDueGoesToTheFullestUnderTheEnvelope) {
  auto policy = Policy("bf-io:age=1");
  const Instance instance = {{100, 80, 60, 20}, {0, 1, 1, 1}, {40}};
  std::vector<Waiting> waiting = Pool(instance.sizes);
  std::vector<WorkerLoad> full = Workers(instance);
  full[1].num_sent = full[2].num_waiting = 1;
  full[3].accepts = false;
  EXPECT_TRUE(Decide(policy.get(), full, waiting).placements.empty()) << "no slot is free";
  // It became a candidate at the first choice, at step 1.
  Instance none = instance;
  none.slots = {1, 0, 0, 0};
  std::vector<WorkerLoad> tiny = Workers(none, 1);
  tiny[0].max_context = 8;
  EXPECT_TRUE(Decide(policy.get(), tiny, waiting).placements.empty());
  EXPECT_THAT(LoadsAfter(instance, Decide(policy.get(), Workers(instance, 2), waiting)),
              ElementsAre(100, 80, 60, 60));
  EXPECT_THAT(LoadsAfter(instance, Decide(policy.get(), Workers(instance, 3), waiting)),
              ElementsAre(100, 80, 100, 20));
}

TEST(BfIo, WhoIsDueAndFitsNowhereKeepsAWorker) {
  auto policy = Policy("bf-io:age=1");
  const Instance instance = {{900, 800}, {2, 2}, {300, 10, 10}};
  std::vector<WorkerLoad> workers = Workers(instance, 1);
  for (WorkerLoad& worker : workers) worker.kv_capacity_tokens = 1000;
  Assignment assignment = Decide(policy.get(), workers, Pool(instance.sizes));
  EXPECT_THAT(LoadsAfter(instance, assignment), ElementsAre(900, 820));
  for (WorkerLoad& worker : workers) worker.step = 3;
  assignment = Decide(policy.get(), workers, Pool(instance.sizes));
  EXPECT_THAT(LoadsAfter(instance, assignment), ElementsAre(920, 800));
}

TEST(BfIo, LooksAhead) {
  // The first worker is the fuller one now, and empty in a moment.
  const Instance instance = {{100, 90}, {1, 1}, {50}};
  std::vector<Leaving> leaving(2);
  leaving[0].tokens.fill(100);
  auto blind = Policy("bf-io:age=0"), ahead = Policy("bf-io:age=0,lookahead=5");
  EXPECT_EQ(blind->needs().lookahead, 0);
  EXPECT_EQ(ahead->needs().lookahead, 5);
  EXPECT_THAT(LoadsAfter(instance, Decide(blind.get(), Workers(instance), Pool({50}), leaving)),
              ElementsAre(100, 140));
  const Assignment assignment = Decide(ahead.get(), Workers(instance), Pool({50}), leaving);
  EXPECT_THAT(LoadsAfter(instance, assignment), ElementsAre(150, 90));
  double expected = 2 * 150 - 240, weight = 1;
  for (int h = 1; h <= 5; ++h) expected += (weight *= 0.86) * (2 * 90 - 140);
  EXPECT_NEAR(assignment.why.value, expected, 1e-9);
}

TEST(BfIo, SurvivalWeighsStepsByTheOutputsThatReachThem) {
  const Instance instance = {{100, 90}, {1, 1}, {50}};
  std::vector<Leaving> leaving(2);
  for (int h = 5; h < kLookaheadSteps; ++h) leaving[0].tokens[h] = 100;  // gone after 6 steps
  auto policy = Policy("bf-io:age=0,lookahead=10,survival=1");
  EXPECT_THAT(LoadsAfter(instance, Decide(policy.get(), Workers(instance), Pool({50}), leaving)),
              ElementsAre(150, 90))
      << "nothing has ended yet: all steps count";
  for (int i = 0; i < 100; ++i) policy->OnFinished(3);
  EXPECT_THAT(LoadsAfter(instance, Decide(policy.get(), Workers(instance), Pool({50}), leaving)),
              ElementsAre(100, 140))
      << "nobody stays for six steps";
}

TEST(BfIo, OptionsAreChecked) {
  EXPECT_FALSE(NewRoutePolicy("bf-io:lookahead=11").ok());
  EXPECT_FALSE(NewRoutePolicy("bf-io:age=-1").ok());
  EXPECT_FALSE(NewRoutePolicy("bf-io:ages=1").ok());
}

// The last step ended at 100 ms and took 10; the request came at 105. Beside a full worker it waits for the
// end of the step: the snapshot that tells it, or 120 ms if there is none.
TEST(BfIo, WhoArrivesDuringAStepBesideAFullWorkerWaitsForItsEnd) {
  const auto ms = [](int64_t v) { return Time{} + Duration::Milliseconds(v); };
  const auto policy = Policy("bf-io");
  std::vector<WorkerLoad> workers = Workers({{50, 60, 70}, {2, 0, 2}, {}});
  for (WorkerLoad& worker : workers) {
    worker.num_running = 3;
    worker.step_at = ms(100);
    worker.step_time = Duration::Milliseconds(10);
  }
  std::vector<Waiting> waiting = Pool({20, 10});
  waiting[0].arrival = ms(100);
  waiting[1].arrival = ms(105);
  const auto placed = [&](Time now, absl::Span<const Waiting> pool) {
    Assignment assignment;
    policy->Assign({.workers = workers}, pool, now, &assignment);
    return assignment.placements.size();
  };
  EXPECT_EQ(placed(ms(105), waiting), 1u) << "the first was there when the step ended";
  EXPECT_EQ(policy->NextWake(), ms(120));
  const absl::Span<const Waiting> kept(&waiting[1], 1);
  EXPECT_EQ(placed(ms(119), kept), 0u);
  EXPECT_EQ(placed(ms(120), kept), 1u) << "nothing was heard";
  EXPECT_EQ(policy->NextWake(), Time::Never());
  workers[2].step_at = ms(110);
  EXPECT_EQ(placed(ms(110), kept), 1u) << "the step ended";
  workers[2].step_at = ms(100);
  workers[1].free_slots = 1;
  EXPECT_EQ(placed(ms(106), kept), 1u) << "every worker has a free slot";
  workers[1].free_slots = 0;
  workers[2].num_running = 0;
  EXPECT_EQ(placed(ms(106), kept), 1u) << "beside a worker that stands still";
  for (WorkerLoad& worker : workers) worker.num_running = 0;
  EXPECT_EQ(placed(ms(106), kept), 1u) << "nobody is at a step";
}

// A few hundred random views in a row, each the last one's successor.
class RandomViews {
 public:
  RandomViews(uint64_t seed, const std::string& spec, int32_t max_samples, bool tight)
      : random_(seed), max_samples_(max_samples), policy_(Policy(spec)), twin_(Policy(spec)) {
    for (uint32_t g = 0; g < 4; ++g) {
      const int64_t capacity = tight ? 300 : 1 << 20;
      workers_.push_back({.worker = WorkerId{2 * g},
                          .accepts = true,
                          .free_slots = 5,
                          .kv_capacity_tokens = capacity,
                          .max_context = 1000});
      running_.emplace_back();
    }
  }

  void Run(int steps) {
    for (int step = 1; step <= steps && !::testing::Test::HasFailure(); ++step) {
      while (waiting_.size() < kWaiting) Arrive();
      Depart();
      for (WorkerLoad& worker : workers_) worker.step = step;
      workers_[random_.Below(4)].accepts = random_.Below(8) != 0;
      Choose();
    }
  }
  int64_t longest_wait() const { return longest_wait_; }
  size_t placed() const { return placed_; }

 private:
  static constexpr size_t kWaiting = 24;
  struct Running {
    int64_t tokens = 0;
    int32_t samples = 0;
  };

  void Arrive() {
    waiting_.push_back({.request = RequestId{++arrived_ * 7919 % 100003},
                        .arrival = Time{} + Duration::Nanoseconds(static_cast<int64_t>(arrived_)),
                        .prompt_tokens = static_cast<int32_t>(1 + random_.Below(250)),
                        .max_new_tokens = 5,
                        .num_samples = static_cast<int32_t>(1 + random_.Below(max_samples_))});
    since_.push_back(-1);
  }
  void Depart() {
    for (size_t g = 0; g < workers_.size(); ++g) {
      for (size_t i = running_[g].size(); i-- > 0;) {
        if (random_.Below(6) != 0) continue;
        workers_[g].kv_tokens -= running_[g][i].tokens;
        workers_[g].free_slots += running_[g][i].samples;
        running_[g].erase(running_[g].begin() + static_cast<ptrdiff_t>(i));
      }
    }
  }
  void Choose() {
    const Assignment assignment = Decide(policy_.get(), workers_, waiting_);
    const Assignment again = Decide(twin_.get(), workers_, waiting_);
    ASSERT_EQ(assignment.placements.size(), again.placements.size());
    const int64_t step = workers_[0].step;
    int64_t free = 0;
    for (const WorkerLoad& worker : workers_) free += worker.accepts ? worker.free_slots : 0;
    for (int64_t& since : since_) since = since < 0 && free > 0 ? step : since;
    for (size_t i = 0; i < assignment.placements.size(); ++i) {
      const Placement& placement = assignment.placements[i];
      EXPECT_EQ(placement.request, again.placements[i].request);
      EXPECT_EQ(placement.worker, again.placements[i].worker);
      Start(placement, step);
    }
    EXPECT_FALSE(assignment.why.value < assignment.why.bound - 1e-6);
  }
  void Start(const Placement& placement, int64_t step) {
    const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                    [&](const Waiting& w) { return w.request == placement.request; });
    ASSERT_NE(found, waiting_.end()) << "placed twice or unknown";
    const size_t g = Value(placement.worker) / 2;
    WorkerLoad& worker = workers_[g];
    EXPECT_EQ(worker.worker, placement.worker);
    EXPECT_TRUE(worker.accepts);
    EXPECT_TRUE(worker.kv_tokens == 0 ||
                worker.kv_tokens + found->prompt_tokens <= worker.kv_capacity_tokens);
    worker.free_slots -= found->num_samples;
    worker.kv_tokens += found->prompt_tokens;
    EXPECT_GE(worker.free_slots, 0);
    running_[g].push_back({found->prompt_tokens, found->num_samples});
    const auto at = static_cast<size_t>(found - waiting_.begin());
    longest_wait_ = std::max(longest_wait_, step - since_[at]);
    waiting_.erase(found);
    since_.erase(since_.begin() + static_cast<ptrdiff_t>(at));
    ++placed_;
  }

  RandomStream random_;
  const uint64_t max_samples_;
  std::unique_ptr<RoutePolicy> policy_, twin_;
  std::vector<WorkerLoad> workers_;
  std::vector<std::vector<Running>> running_;
  std::vector<Waiting> waiting_;
  std::vector<int64_t> since_;
  uint64_t arrived_ = 0;
  int64_t longest_wait_ = 0;
  size_t placed_ = 0;
};

TEST(BfIo, RandomViewsKeepSlotsKvAndTheAgeBound) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    RandomViews bounded(seed, "bf-io:age=30,pool=24", 1, false);
    bounded.Run(400);
    EXPECT_GT(bounded.placed(), 500u);
    RandomViews tight(seed, "bf-io:age=30,lookahead=4", 3, true);
    tight.Run(400);
    EXPECT_GT(tight.placed(), 200u);
    RandomViews greedy(seed, "bf-io:age=0,refine=0", 3, true);
    greedy.Run(400);
  }
}

TEST(BfIo, NobodyWaitsMuchLongerThanTheAgeBound) {
  // Slots come free all the time, so who is due goes on within a few steps; without a bound many do not.
  int64_t bounded_wait = 0, free_wait = 0;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    RandomViews bounded(seed, "bf-io:age=30,pool=24", 1, false),
        unbounded(seed, "bf-io:age=0,pool=24", 1, false);
    bounded.Run(1000);
    unbounded.Run(1000);
    bounded_wait = std::max(bounded_wait, bounded.longest_wait());
    free_wait = std::max(free_wait, unbounded.longest_wait());
  }
  std::printf("longest wait with a bound of 30 steps: %d, without: %d\n", static_cast<int>(bounded_wait),
              static_cast<int>(free_wait));
  EXPECT_LE(bounded_wait, 45);
  EXPECT_GT(free_wait, bounded_wait);
}

}  // namespace
}  // namespace orrery
