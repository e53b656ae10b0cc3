#include <gtest/gtest.h>

#include "router/policy/registry.h"

namespace orrery {
namespace {

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

}  // namespace
}  // namespace orrery
