// The gate and the router by views made by hand; the plan is that of UT-9 (algorithms of the paper's
// convergence instance, B = 16 slots, chunks of 256 tokens).
#include "router/policy/gate_and_route.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "router/policy/registry.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

RoutePlan Plan(std::vector<double> x, std::vector<double> q_prefill, uint64_t id = 1) {
  RoutePlan plan{.id = PlanId{id}, .question = {}, .answer = {}};
  plan.question.classes = {{"short prompt", 300, 1000, 0.5, 0.1, {}},
                           {"long prompt", 3000, 400, 0.5, 0.1, {}}};
  plan.question.slots = 16;
  plan.question.prefill_chunk_tokens = 256;
  plan.answer.x = std::move(x);
  plan.answer.q_prefill = std::move(q_prefill);
  plan.answer.q_decode = {0, 0};
  return plan;
}
// A request on a worker.
std::pair<uint64_t, uint32_t> On(uint64_t request, uint32_t worker) { return {request, worker}; }

RoutePlan Convergence() { return Plan({0.01826, 0.19495}, {0.31725, 0}); }

class GateAndRouteTest : public ::testing::Test {
 protected:
  void Make(const std::string& spec, const RoutePlan& plan) {
    policy_ = *NewRoutePolicy(spec);
    policy_->OnPlanReady(plan);
  }
  void Workers(size_t n) {
    workers_.clear();
    for (uint32_t i = 0; i < n; ++i) {
      workers_.push_back({.worker = WorkerId{i},
                          .accepts = true,
                          .free_slots = 17,
                          .kv_capacity_tokens = 1 << 20,
                          .max_context = 1 << 20});
    }
  }
  // `decodes` samples decode on the worker beside `prefills`.
  void Load(size_t worker, int32_t decodes, int32_t prefills = 0) {
    workers_[worker].num_bound = decodes + prefills;
    workers_[worker].num_prefills = prefills;
    workers_[worker].num_running = decodes + prefills;
    workers_[worker].free_slots = 17 - decodes - prefills;
    workers_[worker].prompt_left = prefills * 1000;
  }
  void Wait(uint64_t id, uint32_t of_class, int32_t prompt = 3000) {
    waiting_.push_back({.request = RequestId{id},
                        .prompt_tokens = prompt,
                        .max_new_tokens = 400,
                        .traffic_class = of_class});
  }
  void Between(uint64_t id, uint32_t from, bool on_worker = true, int32_t samples = 1) {
    between_.push_back({.request = RequestId{id},
                        .prompt_tokens = 300,
                        .max_new_tokens = 400,
                        .num_samples = samples,
                        .from = WorkerId{from},
                        .on_worker = on_worker});
  }
  // (request, worker) of prompts, then of decodes.
  using Placed = std::vector<std::pair<uint64_t, uint32_t>>;
  std::pair<Placed, Placed> Assign() {
    Assignment assignment;
    policy_->Assign({workers_, between_, in_service_}, waiting_, Time{}, &assignment);
    std::pair<Placed, Placed> placed;
    for (const Placement& one : assignment.placements) {
      (one.prefill_only ? placed.first : placed.second).emplace_back(Value(one.request), Value(one.worker));
    }
    return placed;
  }
  Placed Prompts() { return Assign().first; }
  Placed Decodes() { return Assign().second; }

  std::unique_ptr<RoutePolicy> policy_;
  std::vector<WorkerLoad> workers_;
  std::vector<Waiting> waiting_, between_;
  std::vector<int32_t> in_service_;
};

TEST_F(GateAndRouteTest, MixesAsManyWorkersAsThePlanSays) {  // UT-9
  for (const auto& [workers, mixed] : {std::pair{5, 2}, {20, 5}, {50, 11}, {200, 43}, {500, 107}}) {
    Make("gate-and-route", Convergence());
    Workers(static_cast<size_t>(workers));
    waiting_.clear();
    for (uint64_t i = 0; i < 500; ++i) Wait(i, 1);
    const Placed placed = Prompts();
    ASSERT_THAT(placed, SizeIs(mixed)) << workers;
    EXPECT_EQ(placed.back().second, static_cast<uint32_t>(mixed - 1));
  }
}

TEST_F(GateAndRouteTest, NeedsAPlanAndCountsOnlyWhoAccepts) {
  policy_ = *NewRoutePolicy("gate-and-route");
  EXPECT_TRUE(policy_->needs().plan && policy_->needs().kv_transfer);
  Workers(2);
  Wait(1, 1);
  Between(9, 0);
  EXPECT_THAT(Prompts(), IsEmpty());
  policy_->OnPlanReady(Convergence());
  workers_[0].accepts = false;
  EXPECT_THAT(Prompts(), ElementsAre(On(1, 1)));
  workers_[1].accepts = false;
  EXPECT_THAT(Prompts(), IsEmpty());
}

TEST_F(GateAndRouteTest, TheGateServesWhoIsFurthestBelowItsShare) {
  Workers(20);
  for (size_t i = 1; i < 20; ++i) Load(i, 0, 1);  // one prefill slot is free
  const struct {
    std::vector<int32_t> in_service, waiting;  // by class
    uint32_t serves;
  } kCases[] = {
      {{0, 0}, {3, 2}, 1},     // equal: 3 - 20 * 0.317 waiting beyond plan against 2
      {{0, 0}, {9, 2}, 0},     // 2.7 against 2
      {{0, 1}, {1, 9}, 0},     // 0 against 1 / 0.195
      {{1, 3}, {9, 1}, 1},     // 1 / 0.018 against 3 / 0.195
      {{1, 11}, {1, 1}, 0},    // 54.8 against 56.4
      {{5, 0}, {1, 0}, 0},     // nobody else waits
      {{5, 5}, {1, 0, 9}, 0},  // a class that the plan does not know comes last...
      {{0, 0}, {0, 0, 1}, 2},  // ...but it comes
  };
  for (const auto& test : kCases) {
    Make("gate-and-route", Convergence());
    in_service_ = test.in_service;
    waiting_.clear();
    for (uint32_t of = 0; of < test.waiting.size(); ++of) {
      for (int i = 0; i < test.waiting[of]; ++i) Wait(100 * of + static_cast<uint64_t>(i), of);
    }
    // The first of its class.
    EXPECT_THAT(Prompts(), ElementsAre(On(100 * test.serves, 0)));
  }
}

TEST_F(GateAndRouteTest, ChargedSeparatelyTheLongestOutputPerPromptTokenComesFirst) {
  RoutePlan plan = Convergence();
  plan.question.charge_separately = true;
  Make("gate-and-route", plan);
  Workers(1);
  in_service_ = {7, 0};
  Wait(1, 1);
  Wait(2, 0);
  EXPECT_THAT(Prompts(), ElementsAre(On(2, 0)));
}

TEST_F(GateAndRouteTest, DecodesGoSoloThenWhereTheyAreThenToAMixedWorkerThenNowhere) {
  Make("gate-and-route", Convergence());
  Workers(10);  // 0 to 2 are mixed
  for (size_t i = 0; i < 10; ++i) Load(i, i < 3 ? 15 : 16);
  for (uint64_t i = 0; i < 6; ++i) Between(i, 2);
  Load(1, 13, 1);
  Load(2, 14, 1);
  Load(6, 15);
  Load(8, 14);
  // Solo: the one with fewest decodes; then its own worker; then another mixed one.
  EXPECT_THAT(Decodes(), ElementsAre(On(0, 8), On(1, 6), On(2, 8), On(3, 2), On(4, 1), On(5, 1)));
  Load(1, 15, 1);
  EXPECT_THAT(Decodes(), ElementsAre(On(0, 8), On(1, 6), On(2, 8), On(3, 2)));
  // Nobody overtakes in the buffer, not even who needs less.
  between_.clear();
  Between(0, 2, false, 3);
  Between(1, 2, false, 1);
  EXPECT_THAT(Decodes(), IsEmpty());
}

TEST_F(GateAndRouteTest, MoreSamplesThanSlotsGetAWorkerWithoutDecodes) {
  Make("gate-and-route", Convergence());
  Workers(10);
  for (size_t i = 0; i < 10; ++i) Load(i, i == 7 ? 0 : 1);
  Between(1, 0, false, 20);
  EXPECT_THAT(Decodes(), ElementsAre(On(1, 7)));
}

TEST_F(GateAndRouteTest, WhoIsPlannedToWaitDoesSoBeforePrefillWhileTheDecodeBufferIsLong) {
  Workers(10);
  for (size_t i = 0; i < 10; ++i) Load(i, i < 3 ? 15 : 16);
  Wait(1, 0);
  Wait(2, 1);
  Wait(3, 1);
  Between(9, 0, false);
  Make("gate-and-route:buffer=0", Convergence());
  EXPECT_THAT(Prompts(), ElementsAre(On(2, 0), On(3, 1)));
  Make("gate-and-route:buffer=0.1", Convergence());
  EXPECT_THAT(Prompts(), SizeIs(3));
  RoutePlan plan = Convergence();
  plan.answer.q_decode = {0.1, 0};  // 10 x 0.1 may wait for decode
  Make("gate-and-route:buffer=0", plan);
  EXPECT_THAT(Prompts(), SizeIs(3));
}

TEST_F(GateAndRouteTest, APromptFillsUpTheLastChunkOfTheOneBefore) {
  Workers(1);
  Wait(1, 1);
  const auto placed = [&](const char* spec, int64_t prompt_left, int32_t sent, int32_t waiting,
                          int32_t slots) {
    Make(spec, Convergence());
    Load(0, 0, 1);
    workers_[0].prompt_left = prompt_left;
    workers_[0].num_sent = sent;
    workers_[0].num_waiting = waiting;
    workers_[0].free_slots = slots;
    return Prompts().size();
  };
  EXPECT_EQ(placed("gate-and-route", 44, 0, 0, 1), 1u);
  EXPECT_EQ(placed("gate-and-route", 256, 0, 0, 1), 0u) << "the chunk is full";
  EXPECT_EQ(placed("gate-and-route", 44, 1, 0, 1), 0u) << "another is on its way";
  EXPECT_EQ(placed("gate-and-route", 44, 0, 1, 1), 0u) << "another has not begun";
  EXPECT_EQ(placed("gate-and-route", 44, 0, 0, 0), 0u) << "the engine has no slot";
  EXPECT_EQ(placed("gate-and-route:pack=0", 44, 0, 0, 1), 0u);
  // Short prompts share a chunk from the start: 200 tokens leave room, 300 do not.
  waiting_.clear();
  for (uint64_t i = 0; i < 5; ++i) Wait(i, 0, 100);
  Load(0, 0);
  Make("gate-and-route", Convergence());
  EXPECT_THAT(Prompts(), ElementsAre(On(0, 0), On(1, 0), On(2, 0)));
  Make("gate-and-route:pack=0", Convergence());
  EXPECT_THAT(Prompts(), ElementsAre(On(0, 0)));
}

TEST_F(GateAndRouteTest, AWorkerThatChangesPoolFinishesWhatItHas) {
  Workers(5);
  for (uint64_t i = 0; i < 9; ++i) Wait(i, 1);
  Make("gate-and-route:hysteresis=0.3", Convergence());
  EXPECT_THAT(Prompts(), SizeIs(2));  // 5 x 0.213 = 1.07
  policy_->OnPlanReady(Plan({0.02, 0.14}, {0, 0}));
  EXPECT_THAT(Prompts(), SizeIs(2)) << "0.8 is near enough";
  policy_->OnPlanReady(Plan({0.02, 0.10}, {0, 0}));
  EXPECT_THAT(Prompts(), ElementsAre(On(0, 0))) << "0.6 is not";
  policy_->OnPlanReady(Plan({0.02, 0.24}, {0, 0}));
  EXPECT_THAT(Prompts(), ElementsAre(On(0, 0))) << "nor is 1.3 too much for one";
  policy_->OnPlanReady(Plan({0.1, 0.44}, {0, 0}));
  EXPECT_THAT(Prompts(), SizeIs(3));  // 2.7
  Load(1, 16);                        // it was solo: no prompt before a decode has ended
  EXPECT_THAT(Prompts(), ElementsAre(On(0, 0), On(1, 2)));
  Load(1, 15);
  EXPECT_THAT(Prompts(), SizeIs(3));
  // It was mixed: the prefill it has takes a slot of its decodes.
  policy_->OnPlanReady(Plan({0.0, 0.1}, {0, 0}));
  for (size_t i = 0; i < 5; ++i) Load(i, 16);
  Load(1, 15, 1);
  waiting_.clear();
  Between(1, 0, false);
  EXPECT_THAT(Decodes(), IsEmpty());
  Load(1, 14, 1);
  EXPECT_THAT(Decodes(), ElementsAre(On(1, 1)));
}

TEST_F(GateAndRouteTest, APromptTooLargeForOneWorkerGoesToTheNext) {
  Make("gate-and-route", Convergence());
  Workers(5);  // two of them mixed
  workers_[0].max_context = 1000;
  Wait(1, 1, 3000);
  Wait(2, 1, 100);
  EXPECT_THAT(Prompts(), ElementsAre(On(2, 0), On(1, 1)));
}

TEST_F(GateAndRouteTest, ADecodeThatFitsNobodyHereHoldsUpNobody) {
  Make("gate-and-route", Convergence());
  Workers(2);
  Between(1, 0, /*on_worker=*/false);
  between_.back().prompt_tokens = 1 << 21;  // its worker has left
  Between(2, 0);
  EXPECT_THAT(Assign().second, ElementsAre(On(2, 1)));
}

}  // namespace
}  // namespace orrery
