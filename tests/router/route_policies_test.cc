#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <list>
#include <map>
#include <set>
#include <string>

#include "router/policy/prefix_tree.h"
#include "router/policy/registry.h"
#include "router/router_core.h"
#include "scheduler/base/random.h"
#include "scheduler/base/text.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;

std::vector<uint32_t> Assign(RoutePolicy* policy, const std::vector<WorkerLoad>& workers, int count,
                             int32_t prompt = 10) {
  std::vector<Waiting> waiting;
  for (int i = 0; i < count; ++i) {
    waiting.push_back(
        {.request = RequestId{static_cast<uint64_t>(i)}, .prompt_tokens = prompt, .max_new_tokens = 5});
  }
  Assignment out;
  policy->Assign({workers}, waiting, Time{}, &out);
  std::vector<uint32_t> chosen;
  for (const Placement& placement : out.placements) chosen.push_back(Value(placement.worker));
  return chosen;
}

std::vector<WorkerLoad> Workers(std::vector<int32_t> free_slots) {
  std::vector<WorkerLoad> workers;
  for (uint32_t i = 0; i < free_slots.size(); ++i) {
    workers.push_back({.worker = WorkerId{i},
                       .accepts = true,
                       .free_slots = free_slots[i],
                       .kv_capacity_tokens = 100,
                       .max_context = 100});
  }
  return workers;
}

TEST(FcfsPool, FillsFreeSlotsInWorkerOrderAndKeepsTheRest) {
  auto policy = *NewRoutePolicy("fcfs");
  EXPECT_EQ(Assign(policy.get(), Workers({2, 0, 1}), 5), (std::vector<uint32_t>{0, 0, 2}));
}

TEST(FcfsPool, CountsWhatIsOnItsWayAndWhatWaits) {
  auto policy = *NewRoutePolicy("fcfs");
  auto workers = Workers({3, 3});
  workers[0].num_sent = 2;
  workers[1].num_waiting = 3;
  EXPECT_EQ(Assign(policy.get(), workers, 5), (std::vector<uint32_t>{0}));
}

TEST(FcfsPool, LeavesAWorkerWhoseKvIsFullAndLetsNobodyOvertake) {
  auto policy = *NewRoutePolicy("fcfs");
  auto workers = Workers({4, 4});
  workers[0].kv_tokens = 95;
  workers[1].kv_tokens = 75;
  EXPECT_EQ(Assign(policy.get(), workers, 4), (std::vector<uint32_t>{1, 1}));
  EXPECT_TRUE(Assign(policy.get(), workers, 1, 96).empty());  // can never run
}

TEST(RoundRobin, TakesTurnsAcrossCallsAndPassesOverThoseThatRefuse) {
  auto policy = *NewRoutePolicy("round-robin");
  auto workers = Workers({1, 1, 1});
  EXPECT_EQ(Assign(policy.get(), workers, 4), (std::vector<uint32_t>{0, 1, 2, 0}));
  workers[1].accepts = false;
  EXPECT_EQ(Assign(policy.get(), workers, 3), (std::vector<uint32_t>{2, 0, 2}));
  EXPECT_TRUE(Assign(policy.get(), {}, 2).empty());
}

// ---- policies that place on arrival

std::vector<WorkerLoad> Idle(uint32_t count) {
  std::vector<WorkerLoad> workers;
  for (uint32_t i = 0; i < count; ++i) {
    workers.push_back({.worker = WorkerId{i},
                       .accepts = true,
                       .free_slots = 64,
                       .kv_capacity_tokens = 1 << 20,
                       .max_context = 1 << 20});
  }
  return workers;
}

std::vector<WorkerLoad> InFlight(const std::vector<int32_t>& counts) {
  auto workers = Idle(static_cast<uint32_t>(counts.size()));
  for (size_t i = 0; i < counts.size(); ++i) workers[i].num_bound = counts[i];
  return workers;
}

constexpr uint32_t kNowhere = 1'000'000;

uint32_t PlaceOne(RoutePolicy* policy, const std::vector<WorkerLoad>& workers, const Waiting& request,
                  DecisionRecord* why = nullptr) {
  Assignment out;
  policy->Assign({workers}, {&request, 1}, Time{}, &out);
  if (why != nullptr) *why = out.why;
  return out.placements.empty() ? kNowhere : Value(out.placements[0].worker);
}

uint32_t PlaceKey(RoutePolicy* policy, const std::vector<WorkerLoad>& workers, uint64_t key) {
  return PlaceOne(policy, workers, {.prompt_tokens = 10, .max_new_tokens = 5, .routing_key = key});
}

// `shared` ids of prefix `of`, then ids of its own.
std::vector<TokenId> Prompt(int of, size_t shared, size_t length, TokenId own = 0) {
  std::vector<TokenId> ids(length, 1'000'000 + own);
  for (size_t i = 0; i < std::min(shared, length); ++i) ids[i] = of * 10'000 + static_cast<TokenId>(i % 9973);
  return ids;
}

uint32_t PlaceIds(RoutePolicy* policy, const std::vector<WorkerLoad>& workers,
                  const std::vector<TokenId>& ids, uint64_t salt = 0, DecisionRecord* why = nullptr) {
  const Waiting request = {.prompt_tokens = static_cast<int32_t>(ids.size()),
                           .max_new_tokens = 5,
                           .cache_salt = salt,
                           .prompt_ids = ids};
  return PlaceOne(policy, workers, request, why);
}

double ChiSquare(const std::vector<int>& counts, const std::vector<double>& expected) {
  double sum = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    sum += (counts[i] - expected[i]) * (counts[i] - expected[i]) / expected[i];
  }
  return sum;
}

TEST(RandomRoute, IsUniformOverThoseThatAcceptAndRepeatsWithItsSeed) {
  auto workers = Idle(9);
  workers[4].accepts = false;
  auto policy = *NewRoutePolicy("random:seed=5"), same = *NewRoutePolicy("random:seed=5"),
       other = *NewRoutePolicy("random:seed=6");
  const auto chosen = Assign(policy.get(), workers, 8000);
  EXPECT_EQ(chosen, Assign(same.get(), workers, 8000));
  EXPECT_NE(chosen, Assign(other.get(), workers, 8000));
  std::vector<int> counts(9);
  for (const uint32_t w : chosen) ++counts[w];
  EXPECT_EQ(counts[4], 0);
  counts.erase(counts.begin() + 4);
  EXPECT_LT(ChiSquare(counts, std::vector<double>(8, 1000)), 24.3) << "one in a thousand with 7 degrees";
}

TEST(PowerOfTwo, TakesTheLighterOfEachPairOfWorkersEquallyOften) {
  constexpr int kWorkers = 7, kDraws = 8000;
  auto workers = Idle(kWorkers);
  for (int i = 0; i < kWorkers; ++i) workers[static_cast<size_t>(i)].waiting_tokens = 100 * i;
  auto policy = *NewRoutePolicy("power-of-two:seed=3");
  std::vector<int> counts(kWorkers);
  for (int i = 0; i < kDraws; ++i) ++counts[Assign(policy.get(), workers, 1)[0]];
  EXPECT_EQ(counts.back(), 0) << "the heaviest loses against everybody";
  counts.pop_back();
  std::vector<double> expected;
  for (int i = 0; i + 1 < kWorkers; ++i) {
    expected.push_back(kDraws * 2.0 * (kWorkers - 1 - i) / (kWorkers * (kWorkers - 1)));
  }
  EXPECT_LT(ChiSquare(counts, expected), 20.5) << "one in a thousand with 5 degrees";
  EXPECT_EQ(Assign(policy.get(), Idle(1), 2), (std::vector<uint32_t>{0, 0}));
}

TEST(JsqCount, CountsSamplesThatAreNotOverAndItsOwnPlacements) {
  auto policy = *NewRoutePolicy("jsq-count");
  auto workers = InFlight({3, 1, 2});
  workers[1].waiting_tokens = 100'000;
  EXPECT_EQ(Assign(policy.get(), workers, 4), (std::vector<uint32_t>{1, 1, 2, 0}));
  Assignment out;
  const std::vector<Waiting> waiting = {{.request = RequestId{1}, .num_samples = 4},
                                        {.request = RequestId{2}}};
  policy->Assign({workers}, waiting, Time{}, &out);
  EXPECT_EQ(out.placements[1].worker, WorkerId{2}) << "four samples went to worker 1";
  EXPECT_EQ(out.why.value, 5);
}

// algorithms_router.md 9, vector 23.
TEST(ConsistentHash, WalksOnFromAWorkerAboveItsBound) {
  auto policy = *NewRoutePolicy("consistent-hash:skew=1.5");
  const auto idle = Idle(3);
  uint64_t key = 1;
  while (PlaceKey(policy.get(), idle, key) != 0) ++key;
  auto without = idle;
  without[0].accepts = false;
  const uint32_t next = PlaceKey(policy.get(), without, key);
  DecisionRecord why;
  const Waiting request = {.prompt_tokens = 10, .max_new_tokens = 5, .routing_key = key};
  EXPECT_EQ(PlaceOne(policy.get(), InFlight({9, 3, 3}), request, &why), next) << "the bound is 7.5";
  EXPECT_EQ(why.value, 1);
  EXPECT_EQ(PlaceOne(policy.get(), InFlight({7, 3, 3}), request, &why), next) << "the bound is 6.5";
  EXPECT_EQ(PlaceOne(policy.get(), InFlight({6, 4, 3}), request, &why), 0u) << "the bound is 6.5";
  EXPECT_EQ(why.value, 0);
}

TEST(ConsistentHash, KeepsToItsKeyWhenAllThatItFitsAreAboveTheirBound) {
  auto policy = *NewRoutePolicy("consistent-hash");
  auto workers = Idle(4);
  uint64_t key = 1;
  while (PlaceKey(policy.get(), workers, key) != 1) ++key;
  workers[0].num_bound = workers[1].num_bound = 50;
  workers[2].max_context = workers[3].max_context = 8;
  EXPECT_EQ(PlaceKey(policy.get(), workers, key), 1u);
  EXPECT_EQ(PlaceKey(policy.get(), workers, 0), 0u) << "without a key, by load";
}

TEST(ConsistentHash, ALostWorkerMovesItsOwnKeysAloneAndSpreadsThem) {
  auto policy = *NewRoutePolicy("consistent-hash");
  constexpr uint64_t kKeys = 10'000;
  const auto all = Idle(10);
  auto rest = all;
  rest.erase(rest.begin() + 3);
  std::vector<int> before(10), moved_to(10);
  for (uint64_t key = 1; key <= kKeys; ++key) {
    const uint32_t was = PlaceKey(policy.get(), all, key), is = PlaceKey(policy.get(), rest, key);
    ++before[was];
    if (was == 3) {
      ++moved_to[is];
    } else {
      EXPECT_EQ(was, is);
    }
  }
  EXPECT_LT(ChiSquare(before, std::vector<double>(10, kKeys / 10.0)), 27.9);
  EXPECT_EQ(moved_to[3], 0);
  moved_to.erase(moved_to.begin() + 3);
  EXPECT_LT(ChiSquare(moved_to, std::vector<double>(9, before[3] / 9.0)), 26.1);
}

TEST(PrefixTree, RemembersForEachWorkerTheBlocksUsedLast) {
  RandomStream random(11);
  PrefixTree tree(16);
  // Names of the paths of a tree: path p of length n has the names of (p / 4) up to its middle.
  const auto path = [&](uint64_t p, size_t n) {
    std::vector<Hash128> names;
    for (size_t i = 0; i < n; ++i) names.push_back({i < 6 ? p / 4 : 100 + p, i});
    return names;
  };
  std::map<uint32_t, std::list<Hash128>> used;  // by worker, the last one used first
  const auto has = [&](uint32_t w, const Hash128& name) {
    return std::find(used[w].begin(), used[w].end(), name) != used[w].end();
  };
  constexpr size_t kMost = 24;
  auto workers = Idle(3);
  for (int turn = 0; turn < 3000; ++turn) {
    const auto names = path(random.Below(40), 1 + random.Below(12));
    const auto w = static_cast<uint32_t>(random.Below(workers.size()));
    tree.Insert(names, workers[w].worker, kMost);
    auto& own = used[Value(workers[w].worker)];
    for (size_t i = names.size(); i-- > 0;) {
      own.remove(names[i]);
      own.push_front(names[i]);
    }
    if (own.size() > kMost) own.resize(kMost);
    if (random.Below(50) == 0) {
      used.erase(1);
      if (workers.size() == 3) {
        workers.erase(workers.begin() + 1);
      } else {
        workers = Idle(3);
      }
      tree.Keep(workers);
    }
    const auto asked = path(random.Below(40), 12);
    size_t longest = 0, size = 0;
    for (uint32_t id = 0; id < 3; ++id) {
      size_t matched = 0;
      while (matched < asked.size() && has(id, asked[matched])) ++matched;
      ASSERT_EQ(tree.Matched(asked, WorkerId{id}), matched) << turn;
      longest = std::max(longest, matched);
      size += used[id].size();
    }
    ASSERT_EQ(tree.Matched(asked), longest);
    ASSERT_EQ(tree.size(), static_cast<int64_t>(size));
    size_t holders = 0;
    for (uint32_t id = 0; id < 3; ++id) holders += has(id, asked[0]);
    ASSERT_EQ(tree.HoldersOf(asked[0]).size(), holders);
  }
}

// algorithms_router.md 9, vector 10.
TEST(CacheAware, LoadsOf10And50AreBalancedByTheDefaultsOfTheCommandAndNotByThoseOfTheLibrary) {
  for (const auto& [options, balanced] :
       std::map<std::string, bool>{{"abs=32,rel=1.1,match=0.5", false}, {"abs=64,rel=1.5,match=0.3", true}}) {
    auto policy = *NewRoutePolicy("cache-aware:" + options);
    const auto ids = Prompt(1, 640, 640);
    EXPECT_EQ(PlaceIds(policy.get(), InFlight({1, 0}), ids), 1u);
    EXPECT_EQ(PlaceIds(policy.get(), InFlight({10, 50}), ids), balanced ? 1u : 0u) << options;
  }
}

TEST(CacheAware, EqualPrefixesMeetWhileBalancedAndPartWhenNot) {
  auto policy = *NewRoutePolicy("cache-aware:block=16,abs=4");
  const auto idle = Idle(4);
  const uint32_t one = PlaceIds(policy.get(), idle, Prompt(1, 80, 100, 1));
  EXPECT_EQ(one, 0u);
  EXPECT_EQ(PlaceIds(policy.get(), InFlight({4, 0, 0, 0}), Prompt(1, 80, 100, 2)), 0u);
  EXPECT_EQ(PlaceIds(policy.get(), InFlight({4, 0, 0, 0}), Prompt(2, 80, 100)), 1u) << "another prefix";
  EXPECT_EQ(PlaceIds(policy.get(), InFlight({4, 0, 0, 0}), Prompt(1, 48, 100, 3)), 1u)
      << "half of the prompt is too short";
  EXPECT_EQ(PlaceIds(policy.get(), InFlight({4, 0, 0, 0}), Prompt(1, 80, 100, 4), /*salt=*/7), 1u)
      << "another salt shares nothing";
  EXPECT_EQ(PlaceIds(policy.get(), InFlight({5, 1, 0, 1}), Prompt(1, 80, 100, 5)), 2u) << "not balanced";
  DecisionRecord why;
  EXPECT_EQ(PlaceIds(policy.get(), InFlight({3, 1, 2, 1}), Prompt(1, 80, 100, 6), 0, &why), 2u)
      << "learnt when it was not balanced, and the lighter of the two";
  EXPECT_EQ(why.value, 20);
  EXPECT_EQ(why.bound, 20);
  auto without = InFlight({3, 1, 2, 1});
  without.erase(without.begin() + 2);
  EXPECT_EQ(PlaceIds(policy.get(), without, Prompt(1, 80, 100, 7)), 0u) << "worker 2 is gone";
  without[0].accepts = false;
  EXPECT_EQ(PlaceIds(policy.get(), without, Prompt(1, 80, 100, 8)), 1u);
  const Waiting unknown = {.prompt_tokens = 100, .max_new_tokens = 5};
  EXPECT_EQ(PlaceOne(policy.get(), InFlight({1, 2, 3, 0}), unknown), 3u) << "ids that nobody knows";
}

TEST(CacheAware, RemembersNoMoreThanAWorkersKvOrItsShare) {
  for (const char* spec : {"cache-aware:block=16,blocks=1000", "cache-aware:block=16,blocks=20"}) {
    auto policy = *NewRoutePolicy(spec);
    auto workers = Idle(2);
    if (std::string(spec).find("1000") != std::string::npos) {
      for (WorkerLoad& worker : workers) worker.kv_capacity_tokens = 160 + 15;
    }
    workers[1].num_bound = 1;  // everything goes to worker 0
    EXPECT_EQ(PlaceIds(policy.get(), workers, Prompt(1, 64, 64)), 0u);
    EXPECT_EQ(PlaceIds(policy.get(), workers, Prompt(2, 64, 64)), 0u);
    std::swap(workers[0].num_bound, workers[1].num_bound);
    EXPECT_EQ(PlaceIds(policy.get(), workers, Prompt(1, 64, 64)), 0u) << "8 blocks of 10";
    std::swap(workers[0].num_bound, workers[1].num_bound);
    EXPECT_EQ(PlaceIds(policy.get(), workers, Prompt(3, 64, 64)), 0u)
        << "12: two of the second are forgotten";
    std::swap(workers[0].num_bound, workers[1].num_bound);
    EXPECT_EQ(PlaceIds(policy.get(), workers, Prompt(1, 64, 64)), 0u) << "used after the second";
    DecisionRecord why;
    EXPECT_EQ(PlaceIds(policy.get(), workers, Prompt(2, 64, 64), 0, &why), 1u) << "half is not enough";
    EXPECT_EQ(why.bound, 32);
  }
}

TEST(DualMap, APrefixHasTwoWorkersAndStaysOnTheWarmOneUntilItIsOverloaded) {
  auto policy = *NewRoutePolicy("dual-map:backlog=5000,hot=1000");
  auto workers = Idle(8);
  const auto ids = [](TokenId own) { return Prompt(1, 80, 200, own); };
  const uint32_t warm = PlaceIds(policy.get(), workers, ids(1));
  workers[warm].waiting_tokens = 4000;
  EXPECT_EQ(PlaceIds(policy.get(), workers, ids(2)), warm);
  workers[warm].waiting_tokens = 5000;
  const uint32_t second = PlaceIds(policy.get(), workers, ids(3));
  EXPECT_NE(second, warm);
  for (uint32_t i = 0; i < 8; ++i) {
    if (i != warm && i != second) workers[i].waiting_tokens = 3000 + i;
  }
  workers[second].waiting_tokens = 4000;
  EXPECT_EQ(PlaceIds(policy.get(), workers, ids(4)), second) << "the other one, although not the lightest";
  workers[second].waiting_tokens = 6000;
  uint32_t lightest = 0;
  while (lightest == warm || lightest == second) ++lightest;
  EXPECT_EQ(PlaceIds(policy.get(), workers, ids(5)), lightest) << "both are overloaded: the lightest of all";
}

TEST(DualMap, AHotPrefixIsToldApartDeeperAndSpreads) {
  const auto spread = [](const std::string& spec) {
    auto policy = *NewRoutePolicy(spec);
    const auto workers = Idle(16);
    std::set<uint32_t> pairs_of_all;
    std::map<int, std::set<uint32_t>> used;
    // All share 512 tokens; 64 groups of them share 1,200.
    for (int i = 0; i < 1600; ++i) {
      std::vector<TokenId> ids = Prompt(1, 512, 1300, i);
      for (size_t t = 512; t < 1200; ++t) ids[t] = (i % 64) * 7919 + static_cast<TokenId>(t);
      const uint32_t at = PlaceIds(policy.get(), workers, ids);
      if (i < 640) continue;
      pairs_of_all.insert(at);
      used[i % 64].insert(at);
    }
    size_t most = 0;
    for (const auto& [group, at] : used) most = std::max(most, at.size());
    return std::pair(pairs_of_all.size(), most);
  };
  const auto [all, of_group] = spread("dual-map");
  EXPECT_GE(all, 10u) << "64 groups on 16 workers";
  EXPECT_LE(of_group, 2u);
  EXPECT_LE(spread("dual-map:hot=1000000").first, 2u) << "never hot: everybody on one pair";
}

TEST(DualMap, WithoutIdsTheLeastBacklogOfAll) {
  auto policy = *NewRoutePolicy("dual-map");
  auto workers = Idle(3);
  workers[0].prompt_left = 10;
  workers[1].sent_tokens = 5;
  workers[2].waiting_tokens = 7;
  workers[1].kv_tokens = 1000;
  const Waiting unknown = {.prompt_tokens = 100, .max_new_tokens = 5};
  EXPECT_EQ(PlaceOne(policy.get(), workers, unknown), 1u);
}

// ---- staggered

std::vector<WorkerLoad> BusyPrompts(const std::vector<int64_t>& prompt_left) {
  auto workers = Idle(static_cast<uint32_t>(prompt_left.size()));
  for (size_t i = 0; i < prompt_left.size(); ++i) {
    workers[i].prompt_left = prompt_left[i];
    workers[i].num_running = 1;
  }
  return workers;
}

std::vector<Waiting> Sizes(const std::vector<int32_t>& sizes, Time arrival = {}) {
  std::vector<Waiting> waiting;
  for (const int32_t size : sizes) {
    waiting.push_back({.request = RequestId{static_cast<uint64_t>(size)},
                       .arrival = arrival,
                       .prompt_tokens = size,
                       .max_new_tokens = 5});
  }
  return waiting;
}

std::map<uint64_t, uint32_t> Placed(const Assignment& assignment) {
  std::map<uint64_t, uint32_t> placed;
  for (const Placement& placement : assignment.placements) {
    placed[Value(placement.request)] = Value(placement.worker);
  }
  return placed;
}

using Map = std::map<uint64_t, uint32_t>;

// algorithms_router.md 9, vector 16.
TEST(Staggered, FillsTheRanksLikeWater) {
  auto policy = *NewRoutePolicy("staggered:chunk=4096");
  Assignment out;
  policy->Assign({BusyPrompts({0, 1096, 2596, 0})}, Sizes({900, 3500, 700, 2000, 1800}), Time{}, &out);
  EXPECT_EQ(Placed(out), (Map{{3500, 0}, {2000, 3}, {1800, 1}, {900, 3}, {700, 2}}));
  EXPECT_EQ(out.why.value, 4096 - 596) << "596, 1200, 800 and 1196 are left";
  EXPECT_TRUE(policy->NextWake().is_never());
}

TEST(Staggered, KeepsWhatFindsNoCapacityAndServesItFirstNextTime) {
  auto policy = *NewRoutePolicy("staggered:chunk=1000,age_ms=500");
  auto workers = BusyPrompts({0, 0});
  for (WorkerLoad& worker : workers) worker.step_time = Duration::Milliseconds(20);
  for (WorkerLoad& worker : workers) worker.state_at = Time{1};
  std::vector<Waiting> waiting = Sizes({1000, 900, 200, 300, 50}, Time{1});
  Assignment out;
  policy->Assign({workers}, waiting, Time{1}, &out);
  EXPECT_EQ(Placed(out), (Map{{1000, 0}, {900, 1}, {300, 1}})) << "the last one may reach beyond the chunk";
  EXPECT_EQ(policy->NextWake(), Time{1} + Duration::Milliseconds(20));
  waiting = Sizes({200, 50}, Time{1});
  waiting.push_back(Sizes({700}, Time{1'000'000})[0]);
  // Nobody has ended a pass: what is there waits.
  out.Clear();
  policy->Assign({workers}, waiting, Time{1'000'000}, &out);
  EXPECT_TRUE(out.placements.empty());
  // Both have; worker 1 still computes.
  for (WorkerLoad& worker : workers) worker.state_at = Time{10'000'000};
  workers[1].prompt_left = 850;
  out.Clear();
  policy->Assign({workers}, waiting, Time{10'000'000}, &out);
  ASSERT_EQ(out.placements.size(), 3u);
  EXPECT_EQ(Value(out.placements[0].request), 200u) << "left over, before the larger new one";
  EXPECT_EQ(Value(out.placements[1].request), 50u);
  // Without capacity until it is too old for waiting.
  workers[0].prompt_left = workers[1].prompt_left = 5000;
  waiting = Sizes({60}, Time{10'000'000});
  Time now = Time{10'000'000};
  int calls = 0;
  for (out.Clear(); out.placements.empty() && calls < 1000; ++calls) {
    policy->Assign({workers}, waiting, now, &out);
    if (!out.placements.empty()) break;
    ASSERT_GT(policy->NextWake(), now);
    now = policy->NextWake();
  }
  EXPECT_EQ(now, Time{510'000'000});
  // Who fits nowhere wakes nobody up.
  out.Clear();
  policy->Assign({workers}, Sizes({2'000'000}), now, &out);
  EXPECT_TRUE(out.placements.empty());
  EXPECT_TRUE(policy->NextWake().is_never());
}

// algorithms_router.md 9, vector 18: instances that start a pass of 400 ms whenever the last one has ended.
TEST(Staggered, WaitsAnEighthOfAPassOnAverageWhereImmediateDispatchWaitsAHalf) {
  const auto mean_wait = [](const char* spec) {
    auto policy = *NewRoutePolicy(spec);
    auto workers = BusyPrompts({0, 0, 0, 0});
    constexpr int64_t kPass = 400, kMillisecond = 1'000'000;
    for (WorkerLoad& worker : workers) worker.step_time = Duration::Milliseconds(kPass);
    std::vector<Waiting> kept;
    double waited = 0;
    uint64_t placed = 0;
    for (int64_t ms = 1; ms <= 8000; ++ms) {
      const Time now{ms * kMillisecond};
      for (int64_t i = 0; i < 4; ++i) {
        if (ms % kPass == i * kPass / 4) workers[static_cast<size_t>(i)].state_at = now;
      }
      if (ms % 7 == 0) {
        kept.push_back(
            {.request = RequestId{static_cast<uint64_t>(ms)}, .arrival = now, .prompt_tokens = 10});
      }
      Assignment out;
      policy->Assign({workers}, kept, now, &out);
      for (const auto& [id, w] : Placed(out)) {
        if (static_cast<int64_t>(id) > 2 * kPass) {
          // At the start of its next pass; now, if that is now.
          const int64_t start = w * kPass / 4;
          waited += static_cast<double>(ms + (start - ms % kPass + kPass) % kPass - static_cast<int64_t>(id));
          ++placed;
        }
        std::erase_if(kept, [&, name = id](const Waiting& one) { return Value(one.request) == name; });
      }
    }
    EXPECT_GT(placed, 900u);
    return waited / static_cast<double>(placed);
  };
  EXPECT_NEAR(mean_wait("staggered:ranks=1"), 50, 3);
  EXPECT_NEAR(mean_wait("round-robin"), 200, 10);

  auto policy = *NewRoutePolicy("staggered:ranks=1,net_ms=10,chunk=100");
  auto workers = BusyPrompts({0, 0, 0, 0});
  for (WorkerLoad& worker : workers) worker.step_time = Duration::Milliseconds(400);
  for (WorkerLoad& worker : workers) worker.state_at = Time{1};
  Assignment out;
  policy->Assign({workers}, Sizes({100, 101, 102, 103, 104}, Time{1}), Time{1}, &out);
  EXPECT_EQ(out.placements.size(), 4u);
  EXPECT_EQ(policy->NextWake() - Time{1}, Duration::Microseconds(102'500));
}

// algorithms_router.md 9, vector 17.
TEST(Staggered, DecodesWhereFewRunButNotOnAnOutlier) {
  const int64_t kv[] = {100, 110, 105, 120, 300, 115, 108, 112};
  const int32_t running[] = {8, 7, 7, 9, 6, 7, 8, 7};
  auto workers = Idle(9);  // worker 0 computes the prompts
  for (uint32_t i = 0; i < 8; ++i) {
    workers[i + 1].kv_tokens = kv[i];
    workers[i + 1].num_bound = running[i];
  }
  const Waiting between = {.request = RequestId{1},
                           .prompt_tokens = 10,
                           .max_new_tokens = 5,
                           .from = WorkerId{0},
                           .on_worker = true};
  const auto rank = [&](const char* spec) {
    auto policy = *NewRoutePolicy(spec);
    Assignment out;
    policy->Assign({workers, {&between, 1}}, Sizes({20}), Time{}, &out);
    EXPECT_EQ(out.placements.size(), 2u);
    EXPECT_EQ(out.placements[1].worker, WorkerId{0});
    EXPECT_TRUE(out.placements[1].prefill_only);
    return Value(out.placements[0].worker) - 1;
  };
  EXPECT_EQ(rank("staggered:prefill=1"), 2u);
  EXPECT_EQ(rank("staggered:prefill=1,iqr=100"), 4u) << "without the cut at 129.75";
  EXPECT_EQ(rank("staggered:prefill=1,iqr=20.5"), 4u);
  EXPECT_EQ(rank("staggered:prefill=1,iqr=20.4"), 2u) << "116.25 + 20.4 * 9 < 300";
  for (WorkerLoad& worker : workers) worker.max_context = 30;
  workers[0].max_context = 1000;
  auto policy = *NewRoutePolicy("staggered:prefill=1");
  Waiting large = between;
  large.prompt_tokens = 100;
  Assignment out;
  policy->Assign({workers, {&large, 1}}, {}, Time{}, &out);
  EXPECT_EQ(Placed(out), (Map{{1, 0}})) << "too large for the others: it goes on where it is";
  EXPECT_TRUE(policy->needs().kv_transfer);
  EXPECT_FALSE((*NewRoutePolicy("staggered"))->needs().kv_transfer);
}

TEST(Staggered, TheRouterWakesItUp) {
  RouterCore core({}, *NewRoutePolicy("staggered:chunk=100,age_ms=30"),
                  ReplayLimits{.progress_timeout = Duration::Infinite()});
  RouterOutput out;
  core.OnWorkerUp({.worker = WorkerId{0},
                   .incarnation = 1,
                   .kv_capacity_tokens = 10'000,
                   .max_context = 1000,
                   .slots = 8},
                  Time{1}, &out);
  const auto arrive = [&](uint64_t id, Time now) {
    Submit submit;
    submit.key.request = RequestId{id};
    submit.num_prompt = 100;
    submit.stop.max_tokens = 5;
    ASSERT_TRUE(core.OnArrival(std::move(submit), 1, now, &out).ok());
  };
  arrive(1, Time{1});
  EXPECT_EQ(out.dispatch.size(), 1u) << "the worker is idle";
  arrive(2, Time{1});
  ASSERT_EQ(core.num_pooled(), 1);
  const Time due = Time{1} + Duration::Milliseconds(30);
  while (core.num_pooled() > 0 && core.NextWake() <= due) core.OnTimer(core.NextWake(), &out);
  EXPECT_EQ(core.num_pooled(), 0);
  EXPECT_EQ(out.dispatch.size(), 2u);
  EXPECT_TRUE(core.NextWake().is_never());
}

// ---- all

// What a policy sees of a request comes from the Submit; a session's requests meet.
TEST(RoutePolicies, SeeKeySaltAndIdsOfARequest) {
  class Recorder final : public RoutePolicy {
   public:
    explicit Recorder(std::vector<Waiting>* seen) : seen_(seen) {}
    void Assign(const ClusterView&, absl::Span<const Waiting> waiting, Time, Assignment*) override {
      seen_->assign(waiting.begin(), waiting.end());
    }

   private:
    std::vector<Waiting>* seen_;
  };
  std::vector<Waiting> seen;
  RouterCore core({}, std::make_unique<Recorder>(&seen));
  RouterOutput out;
  core.OnWorkerUp({.worker = WorkerId{0}, .kv_capacity_tokens = 100, .max_context = 100, .slots = 1}, Time{},
                  &out);
  Submit submit;
  submit.key.request = RequestId{1};
  submit.num_prompt = 3;
  submit.stop.max_tokens = 5;
  submit.routing_key = 7;
  submit.cache_salt = 9;
  submit.tokens = std::make_shared<const std::vector<TokenId>>(std::vector<TokenId>{4, 5, 6});
  ASSERT_TRUE(core.OnArrival(submit, 1, Time{}, &out).ok());
  submit.key.request = RequestId{2};
  submit.tokens = nullptr;
  ASSERT_TRUE(core.OnArrival(submit, 1, Time{}, &out).ok());
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0].routing_key, 7u);
  EXPECT_EQ(seen[0].cache_salt, 9u);
  EXPECT_THAT(seen[0].prompt_ids, ElementsAre(4, 5, 6));
  EXPECT_TRUE(seen[1].prompt_ids.empty());
}

class History {
 public:
  History(const std::string& name, uint64_t seed)
      : name_(name), policy_(*NewRoutePolicy(name)), random_(seed) {
    const std::set<std::string> pooling = {"fcfs", "bf-io", "staggered", "slo", "gate-and-route"};
    at_once_ = pooling.count(name) == 0;
  }

  void Run(int turns) {
    for (int turn = 0; turn < turns; ++turn) {
      now_ = now_ + Duration::Milliseconds(1);
      Change();
      Arrive();
      Check();
    }
  }
  size_t placed() const { return placed_; }

 private:
  int32_t Draw(uint64_t bound) { return static_cast<int32_t>(random_.Below(bound)); }

  // Workers come and go, fill and drain.
  void Change() {
    if (random_.Below(20) == 0) {
      const WorkerId id{static_cast<uint32_t>(random_.Below(8))};
      const auto at =
          std::find_if(workers_.begin(), workers_.end(), [&](const auto& w) { return w.worker >= id; });
      if (at != workers_.end() && at->worker == id) {
        workers_.erase(at);
      } else {
        workers_.insert(
            at, {.worker = id, .kv_capacity_tokens = 100 + Draw(2000), .max_context = 50 + Draw(1000)});
      }
    }
    for (WorkerLoad& worker : workers_) {
      if (random_.Below(3) > 0) continue;
      worker.accepts = random_.Below(5) > 0;
      worker.state_at = now_;
      worker.step_time = Duration::Microseconds(1 + Draw(5000));
      worker.kv_tokens = Draw(1000);
      worker.waiting_tokens = Draw(500);
      worker.sent_tokens = worker.prompt_left = 0;
      worker.num_running = Draw(8);
      worker.num_bound = worker.num_running + Draw(60);
      worker.free_slots = 8 - worker.num_running;
    }
  }

  void Arrive() {
    for (uint64_t i = random_.Below(4); i > 0; --i) {
      const uint64_t id = ++ids_;
      const auto length = static_cast<size_t>(1 + Draw(600));
      prompts_[id] = Prompt(Draw(6), static_cast<size_t>(Draw(500)), length, static_cast<TokenId>(id));
      Waiting request = {.request = RequestId{id},
                         .arrival = now_,
                         .prompt_tokens = static_cast<int32_t>(length),
                         .max_new_tokens = 1 + Draw(50),
                         .num_samples = 1 + Draw(3),
                         .routing_key = random_.Below(20),
                         .cache_salt = random_.Below(2)};
      if (random_.Below(4) > 0) request.prompt_ids = prompts_[id];
      pool_.push_back(request);
    }
    if (pool_.size() > 50) pool_.erase(pool_.begin(), pool_.begin() + 25);  // cancelled
  }

  void Check() {
    Assignment out;
    policy_->Assign({workers_}, pool_, now_, &out);
    if (!at_once_) {
      EXPECT_GT(policy_->NextWake(), now_) << name_;
    }
    std::set<uint64_t> gone;
    for (const Placement& placement : out.placements) {
      const auto request = std::find_if(pool_.begin(), pool_.end(),
                                        [&](const Waiting& w) { return w.request == placement.request; });
      const auto worker = std::find_if(workers_.begin(), workers_.end(),
                                       [&](const WorkerLoad& w) { return w.worker == placement.worker; });
      ASSERT_NE(request, pool_.end()) << name_;
      ASSERT_NE(worker, workers_.end()) << name_;
      EXPECT_TRUE(worker->accepts && CanRun(*request, *worker)) << name_;
      EXPECT_FALSE(placement.prefill_only) << name_;
      EXPECT_TRUE(gone.insert(Value(placement.request)).second) << name_ << ": twice";
      worker->sent_tokens += request->prompt_tokens;
      worker->num_bound += request->num_samples;
      ++placed_;
    }
    EXPECT_EQ(out.why.policy.empty() ? name_ : out.why.policy, name_);
    EXPECT_FALSE(out.why.value < out.why.bound) << name_ << " " << out.why.objective;
    std::erase_if(pool_, [&](const Waiting& w) { return gone.count(Value(w.request)) > 0; });
    for (const Waiting& left : pool_) {
      const auto runs = [&](const WorkerLoad& w) { return w.accepts && CanRun(left, w); };
      const bool could = std::any_of(workers_.begin(), workers_.end(), runs);
      EXPECT_FALSE(at_once_ && could) << name_ << " leaves a request behind";
    }
  }

  const std::string name_;
  std::unique_ptr<RoutePolicy> policy_;
  RandomStream random_;
  bool at_once_ = true;
  Time now_;
  uint64_t ids_ = 0;
  size_t placed_ = 0;
  std::vector<WorkerLoad> workers_;
  std::vector<Waiting> pool_;
  std::map<uint64_t, std::vector<TokenId>> prompts_;
};

TEST(RoutePolicies, PlaceOnWorkersThatTakeItOnceAndOnArrivalAtOnce) {
  for (const PolicyInfo& info : RouterPolicies()) {
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      History history(std::string(info.name), seed);
      history.Run(400);
      if (info.name != "gate-and-route") {
        EXPECT_GT(history.placed(), 10u) << info.name;
      }
    }
  }
}

}  // namespace
}  // namespace orrery
