// The predictors of TTFT and TPOT, and the policy that places by them.
#include "router/policy/slo.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "router/policy/registry.h"
#include "router/router_core.h"
#include "scheduler/base/random.h"
#include "scheduler/types/refusal.h"

namespace orrery {
namespace {

constexpr LatencyModel kFast = {.base = 10, .per_seq = 0.1, .per_kv = 1e-4, .per_token = 0.05};
constexpr LatencyModel kSlow = {.base = 30, .per_seq = 0.3, .per_kv = 3e-4, .per_token = 0.15};

Time AtMs(double ms) { return Time{} + Duration::Seconds(ms * 1e-3); }

WorkerLoad IdleWorker(uint32_t id) {
  return {.worker = WorkerId{id},
          .accepts = true,
          .free_slots = 64,
          .kv_capacity_tokens = 10'000'000,
          .max_context = 1 << 20};
}

WorkerLoad DecodingWorker(uint32_t id, int32_t samples, int64_t kv_tokens) {
  WorkerLoad load = IdleWorker(id);
  load.num_running = load.num_bound = samples;
  load.kv_tokens = kv_tokens;
  return load;
}

// ---- vectors

TEST(LatencyPrediction, TtftIsQueueAndTransferAndWhatThePrefixLeaves) {
  const LatencyModel model = {.per_token = 0.1, .per_token_sq = 7e-6};
  WorkerLoad worker = IdleWorker(0);
  worker.max_step_tokens = 1 << 20;
  const auto ttft = [&](int32_t queue_ms, int32_t hit, double transfer_ms = 0) {
    worker.num_sent = 10 * queue_ms;  // prompts of one token
    worker.sent_tokens = worker.num_sent;
    return transfer_ms +
           PredictLatency(model, worker, {}, Duration::Infinite(), {8192, hit, 1}, Time{}).ttft_ms();
  };
  // The queue's own squares are 0.06 ms.
  EXPECT_NEAR(ttft(900, 6144), 1310.3, 0.1);
  EXPECT_NEAR(ttft(100, 6144, 0.05 * (6144 - 1024)), 766.3, 0.1);
  EXPECT_NEAR(ttft(100, 1024), 1279.2, 0.1);
  EXPECT_NEAR(ttft(300, 4096), 1061.9, 0.1);
}

TEST(LatencyPrediction, WhoWillHaveEndedByThenIsNoLoad) {
  const Time now = AtMs(100'000);
  // Ages 19, 12, 8 and 5 s; prefills that finish in 2, 5 and 10 s.
  const Begun begun = {AtMs(81'000),  AtMs(88'000),  AtMs(92'000), AtMs(95'000),
                       AtMs(102'000), AtMs(105'000), AtMs(110'000)};
  const Duration life = Duration::Seconds(20);
  EXPECT_EQ(DecodesAt(begun, life, now + Duration::Seconds(10)), 5);
  EXPECT_EQ(DecodesAt(begun, life, now), 7);
  EXPECT_EQ(DecodesAt(begun, life, now + Duration::Seconds(60)), 0);
  EXPECT_EQ(DecodesAt(begun, Duration::Infinite(), now + Duration::Seconds(60)), 7);
}

TEST(LatencyPrediction, TpotGrowsWithBatchAndTokens) {
  const LatencyModel model = {.base = 10, .per_seq = 0.05, .per_kv = 2e-5};
  const auto tpot = [&](int32_t batch, int64_t tokens) {
    WorkerLoad worker = DecodingWorker(0, batch, tokens);
    worker.free_slots = 1000;
    return PredictLatency(model, worker, {}, Duration::Infinite(), {4000, 0, 1}, Time{}).tpot_ms;
  };
  EXPECT_NEAR(tpot(100, 400'000), 23.13, 1e-9);
  EXPECT_NEAR(tpot(180, 900'000), 37.13, 1e-9);
  EXPECT_NEAR(tpot(200, 1'500'000), 50.13, 1e-9);
}

// ---- worked out by hand

TEST(LatencyPrediction, CountsThePassThatRunsAndThePassesOfTheQueue) {
  WorkerLoad worker = DecodingWorker(0, 10, 20'000);  // a step of 10 + 1 + 2 ms
  worker.max_step_tokens = 1010;                      // chunks of 1000
  worker.waiting_tokens = 2500;
  worker.num_waiting = 1;
  worker.state_at = AtMs(100);
  const Latency latency = PredictLatency(kFast, worker, {}, Duration::Infinite(), {1000, 400, 1}, AtMs(120));
  EXPECT_NEAR(latency.pass_ms, 13 + 50 - 20, 1e-9);
  EXPECT_NEAR(latency.queue_ms, 1500 * 0.05 + 2 * 13, 1e-9);
  EXPECT_NEAR(latency.prompt_ms, 600 * 0.05 + 13, 1e-9) << "600 where 500 of the last pass were free";
  EXPECT_EQ(PredictLatency(kFast, worker, {}, Duration::Infinite(), {1000, 0, 1}, AtMs(1000)).pass_ms, 0);
}

TEST(LatencyPrediction, ASlotIsFreeWhenTheOldestHasLivedItsLife) {
  WorkerLoad worker = DecodingWorker(0, 3, 3000);
  worker.free_slots = 0;
  worker.num_waiting = 1;
  const Begun begun = {AtMs(100), AtMs(400), AtMs(900), AtMs(1500)};  // the last one is the one that waits
  const auto queue = [&](double now) {
    return PredictLatency(kFast, worker, begun, Duration::Seconds(2), {100, 0, 1}, AtMs(now)).queue_ms;
  };
  EXPECT_NEAR(queue(1500), 900, 1e-9) << "the second that ends makes room for it";
  EXPECT_NEAR(queue(2500), 0, 1e-9) << "whoever lives longer than expected may end at any time";
}

TEST(LatencyPrediction, WaitsForSlotsThatEndOneByOne) {
  WorkerLoad worker = DecodingWorker(0, 10, 20'000);
  worker.free_slots = 0;
  worker.state_at = AtMs(0);
  const auto queue = [&] {
    return PredictLatency(kFast, worker, {}, Duration::Seconds(2), {100, 0, 1}, AtMs(0)).queue_ms;
  };
  EXPECT_NEAR(queue(), 200, 1e-9);
  worker.num_sent = 2;
  EXPECT_NEAR(queue(), 600, 1e-9);
  worker.num_sent = 0;
  worker.free_slots = 1;
  EXPECT_NEAR(queue(), 0, 1e-9);
  worker.kv_capacity_tokens = 20'000 - 3900;  // 4000 short, 2000 for each sample
  EXPECT_NEAR(queue(), 400, 1e-9);
}

// ---- calibration

// A worker of known coefficients that tells of its steps.
class Synthetic {
 public:
  Synthetic(uint32_t id, const LatencyModel& model) : model_(model), load_(IdleWorker(id)) {}

  // One step: those that ran, and a chunk of a prompt; half of the prompts take three chunks.
  template <typename Tell>
  void Step(RandomStream* random, bool prompts, double noise, Tell tell) {
    WorkerLoad next = load_;
    ++next.step;
    const int32_t chunk =
        !prompts || random->Below(2) == 0 ? 0 : 1 + static_cast<int32_t>(random->Below(1500));
    int64_t applied = 0, begin = begun_, count = chunk;
    if (begun_ > 0) {
      next.prompt_left -= count = next.prompt_left / (begun_ == first_ ? 2 : 1);
      begun_ += count;
    } else if (chunk > 0) {
      applied = random->Below(2) == 0 ? chunk : 3 * chunk;
      next.prompt_left = applied - chunk;
      first_ = begun_ = chunk;
    }
    if (next.prompt_left == 0) begun_ = 0;
    const int32_t decodes = load_.num_running - (load_.prompt_left > 0 ? 1 : 0);
    const auto end = static_cast<double>(begin + count), from = static_cast<double>(begin);
    const double context = decodes == 0 ? 0 : static_cast<double>(load_.kv_tokens - begin + decodes);
    const double ms = model_.StepMs(decodes, context) + model_.per_token * static_cast<double>(count) +
                      model_.per_token_sq * (end * end - from * from);
    next.step_time = Duration::Seconds(ms * 1e-3 * (1 + noise * (2 * random->Uniform() - 1)));
    next.state_at = load_.state_at + next.step_time;
    next.num_running = static_cast<int32_t>(random->Below(64)) + (next.prompt_left > 0 ? 1 : 0);
    next.kv_tokens =
        static_cast<int64_t>(next.num_running) * 500 + static_cast<int64_t>(random->Below(50'000)) + begun_;
    load_ = next;
    tell(next, applied);
  }

 private:
  const LatencyModel model_;
  WorkerLoad load_;
  int64_t begun_ = 0, first_ = 0;  // of the prompt at hand
};

// In the end decodes alone: no prompts are expected beside them.
template <typename Learner>
void Teach(Learner* learner, const std::vector<LatencyModel>& models, int steps = 2000, double noise = 0) {
  RandomStream random(7);
  std::vector<Synthetic> workers;
  for (uint32_t i = 0; i < models.size(); ++i) workers.emplace_back(i, models[i]);
  for (int step = 0; step < steps; ++step) {
    for (Synthetic& worker : workers) {
      worker.Step(&random, 5 * step < 4 * steps, noise,
                  [&](const WorkerLoad& load, int64_t applied) { learner->OnWorkerState(load, applied); });
    }
  }
}

TEST(LatencyPredictor, LearnsTheCoefficientsOfEachWorker) {
  const LatencyModel first = {10, 0.1, 1e-4, 0.05, 1e-5}, second = {25, 0.4, 3e-4, 0.2, 2e-5};
  LatencyPredictor predictor;
  // Each begins as what both seemed to be together, which is forgotten only with time.
  Teach(&predictor, {first, second}, 10'000, 0.03);
  uint32_t id = 0;
  for (const LatencyModel& truth : {first, second}) {
    const LatencyModel model = predictor.ModelOf(WorkerId{id});
    EXPECT_NEAR(model.base / truth.base, 1, 0.05);
    EXPECT_NEAR(model.per_seq / truth.per_seq, 1, 0.05);
    EXPECT_NEAR(model.per_kv / truth.per_kv, 1, 0.05);
    EXPECT_NEAR(model.per_token / truth.per_token, 1, 0.05);
    EXPECT_NEAR(model.per_token_sq / truth.per_token_sq, 1, 0.05);
    ++id;
  }
  const PredictionError& error = predictor.errors().step;
  // Noise of 1.5 % on average, in steps of some six times the base.
  EXPECT_GT(error.count(), 19'000);
  EXPECT_LT(error.mean_absolute(), 0.15 * (first.base + second.base) / 2);
  EXPECT_GE(error.p90(), error.mean_absolute());
}

TEST(LatencyPredictor, PromptsThatComeBesideSlowDownTheDecodes) {
  LatencyPredictor predictor;
  Teach(&predictor, {kFast});
  WorkerLoad load = DecodingWorker(0, 8, 4000);
  const auto step = [&](int64_t prompt) {
    ++load.step;
    load.step_time = Duration::Seconds((kFast.StepMs(8, 4008) + kFast.PromptMs(prompt, 0)) * 1e-3);
    predictor.OnWorkerState(load, prompt);
  };
  const auto tpot = [&] { return predictor.Predict(load, {.prompt_tokens = 100}, AtMs(0)).tpot_ms; };
  EXPECT_NEAR(tpot(), kFast.StepMs(9, 4100), 0.1);
  for (int i = 0; i < 400; ++i) step(i % 4 == 0 ? 800 : 0);
  EXPECT_NEAR(tpot(), kFast.StepMs(9, 4100) + 10, 1.5) << "40 ms in every fourth step";
  for (int i = 0; i < 400; ++i) step(0);
  EXPECT_NEAR(tpot(), kFast.StepMs(9, 4100), 0.1);
}

TEST(LatencyPredictor, KeepsTheErrorOfTtft) {
  LatencyPredictor predictor;
  Teach(&predictor, {kFast});
  for (uint64_t i = 0; i < 10; ++i) {
    predictor.OnPlaced(RequestId{i}, WorkerId{0}, 1, {.pass_ms = 10, .queue_ms = 20, .prompt_ms = 70},
                       AtMs(0));
    predictor.OnFirstToken(RequestId{i}, AtMs(100.0 + static_cast<double>(i)));
    predictor.OnFirstToken(RequestId{i}, AtMs(900));  // was told before
  }
  EXPECT_EQ(predictor.errors().ttft.count(), 10);
  EXPECT_NEAR(predictor.errors().ttft.mean_absolute(), 4.5, 1e-5);
  EXPECT_NEAR(predictor.errors().ttft.p90(), 8, 1e-5);
}

// ---- the policy

class SloPolicyTest : public ::testing::Test {
 protected:
  static Waiting Request(uint64_t id, double ttft_ms, double tpot_ms, int32_t priority = 0,
                         uint32_t tenant = 0) {
    Waiting waiting{.request = RequestId{id}, .prompt_tokens = 1000, .max_new_tokens = 100};
    waiting.priority = priority;
    waiting.tenant = tenant;
    if (ttft_ms > 0) waiting.slo.ttft = Duration::Seconds(ttft_ms * 1e-3);
    if (tpot_ms > 0) waiting.slo.tpot = Duration::Seconds(tpot_ms * 1e-3);
    return waiting;
  }
  Assignment Assign(const std::vector<WorkerLoad>& workers, const std::vector<Waiting>& waiting,
                    double at_ms = 0) {
    Assignment out;
    policy_.Assign({workers}, waiting, AtMs(at_ms), &out);
    return out;
  }
  // Where one request goes; -1: it waits, -2: it is shed.
  int Choose(const std::vector<WorkerLoad>& workers, const Waiting& request, double at_ms = 0) {
    const Assignment out = Assign(workers, {request}, at_ms);
    EXPECT_LE(out.placements.size() + out.shed.size(), 1u);
    if (!out.placements.empty()) return static_cast<int>(Value(out.placements[0].worker));
    return out.shed.empty() ? -1 : -2;
  }

  SloPolicy policy_{SloOptions{}};
};

TEST_F(SloPolicyTest, KnowingNothingItTakesWhoHoldsLeast) {
  std::vector<WorkerLoad> workers = {DecodingWorker(0, 3, 3000), DecodingWorker(1, 1, 2000),
                                     DecodingWorker(2, 2, 2500)};
  EXPECT_EQ(Choose(workers, Request(1, 100, 10)), 1);
  workers[1].accepts = false;
  EXPECT_EQ(Choose(workers, Request(2, 0, 0)), 2);
  EXPECT_EQ(Choose({}, Request(3, 0, 0)), -1);
}

TEST_F(SloPolicyTest, TakesTheCheapestWorkerThatMeetsTheTargets) {
  Teach(&policy_, {kFast, kSlow});
  std::vector<WorkerLoad> workers = {IdleWorker(0), IdleWorker(1)};
  EXPECT_EQ(Choose(workers, Request(1, 0, 0)), 0) << "the fastest";
  // 1.1 s of prompts before it, still the first to end there: 2.5 s against 3.2.
  workers[0].waiting_tokens = 20'000;
  workers[0].num_waiting = workers[0].num_bound = 4;
  EXPECT_EQ(Choose(workers, Request(2, 0, 0)), 1) << "the only one with room";
  EXPECT_EQ(Choose(workers, Request(3, 5000, 0)), 0);
  EXPECT_EQ(Choose(workers, Request(4, 500, 0)), 1) << "only the slow one is in time";
}

TEST_F(SloPolicyTest, ALargeBatchMissesTheTpotAndALongQueueDoesNot) {
  Teach(&policy_, {kFast, kFast});
  std::vector<WorkerLoad> workers = {DecodingWorker(0, 20, 10'000), IdleWorker(1)};
  workers[1].waiting_tokens = 4000;
  workers[1].num_waiting = workers[1].num_bound = 1;
  Waiting request = Request(1, 0, 0);
  request.max_new_tokens = 50;
  EXPECT_EQ(Choose(workers, request), 0) << "736 ms against 820";
  EXPECT_EQ(Choose(workers, Request(2, 0, 14)), 1);  // 13.2 and 10.7 ms; a tenth is margin
}

TEST_F(SloPolicyTest, ItsSamplesCountAgainstOthersUnlessTheyAreFew) {
  Teach(&policy_, {kFast, kFast});
  // Alike but for those whom it would delay.
  EXPECT_EQ(Choose({DecodingWorker(0, 12, 5000), DecodingWorker(1, 4, 5000)}, Request(1, 5000, 50)), 1);
}

TEST_F(SloPolicyTest, APrefixThatWasSentSavesItsPrefill) {
  const LatencyModel slow_prompts = {.base = 1, .per_seq = 0.01, .per_kv = 1e-6, .per_token = 1};
  Teach(&policy_, {slow_prompts, slow_prompts});
  const std::vector<TokenId> ids(1000, 5);
  Waiting first = Request(1, 5000, 0), second = Request(2, 5000, 0);
  first.prompt_ids = second.prompt_ids = ids;
  EXPECT_EQ(Choose({IdleWorker(0)}, first), 0);
  EXPECT_EQ(Choose({DecodingWorker(0, 1, 1000), IdleWorker(1)}, second), 0);
  second.request = RequestId{3};
  second.cache_salt = 9;
  EXPECT_EQ(Choose({DecodingWorker(0, 1, 1000), IdleWorker(1)}, second), 1) << "another salt shares nothing";
}

TEST_F(SloPolicyTest, WaitsWhileItsTtftCanBeReachedThenGoesWhereItIsLeastLate) {
  Teach(&policy_, {kFast, kFast});
  // Steps of 15.2 and 14.2 ms for a target of 12.
  const std::vector<WorkerLoad> workers = {DecodingWorker(0, 40, 10'000), DecodingWorker(1, 30, 10'000)};
  const Waiting request = Request(1, 1000, 12);
  ASSERT_EQ(Choose(workers, request), -1);
  const Time wake = policy_.NextWake();
  EXPECT_GT(wake, AtMs(900));
  EXPECT_LT(wake, AtMs(1000));
  EXPECT_EQ(Choose(workers, request, 500), -1);
  EXPECT_EQ(Choose({workers[0], DecodingWorker(1, 2, 1000)}, request, 500), 1) << "one that meets them came";
  EXPECT_EQ(Choose(workers, request, 990), 1);
  EXPECT_EQ(Choose(workers, Request(2, 0, 12)), -1);
  EXPECT_EQ(policy_.NextWake(), AtMs(5000)) << "without a ttft target the patience is the bound";
  EXPECT_EQ(Choose(workers, Request(2, 0, 12), 5000), 1);
}

TEST_F(SloPolicyTest, TheLateWaitForRoomAndNotForEver) {
  Teach(&policy_, {kFast});
  WorkerLoad worker = DecodingWorker(0, 10, 10'000);
  worker.waiting_tokens = 100'000;
  worker.num_waiting = 20;
  const Waiting request = Request(1, 1000, 0);
  EXPECT_EQ(Choose({worker}, request, 0), -1);
  EXPECT_EQ(Choose({worker}, request, 1500), -1);
  EXPECT_EQ(policy_.NextWake(), AtMs(6000));
  EXPECT_EQ(Choose({worker}, request, 6000), 0);
  worker.waiting_tokens = 1000;
  worker.num_waiting = 1;
  EXPECT_EQ(Choose({worker}, request, 1500), 0);
}

// Worker 0 has the prefix and no room, worker 1 is as full of decodes and has room: whoever lacks the second
// that the prefix saves makes everybody later.
TEST_F(SloPolicyTest, TheLateWaitForTheWorkerWithTheirPrefixUntilItsQueueCostsMore) {
  const LatencyModel slow_prompts = {.base = 1, .per_seq = 0.01, .per_kv = 1e-6, .per_token = 1};
  Teach(&policy_, {slow_prompts, slow_prompts});
  const std::vector<TokenId> ids(1000, 5);
  const auto request = [&](uint64_t id) {
    Waiting out = Request(id, 1000, 0);
    out.prompt_ids = ids;
    return out;
  };
  ASSERT_EQ(Choose({IdleWorker(0)}, request(1)), 0);
  WorkerLoad full = DecodingWorker(0, 20, 20'000), open = DecodingWorker(1, 20, 20'000);
  full.num_waiting = full.free_slots;
  full.waiting_tokens = 1500;
  open.waiting_tokens = 1000;
  open.num_waiting = 1;
  EXPECT_EQ(Choose({full, open}, request(2), 1500), -1);
  EXPECT_EQ(policy_.NextWake(), AtMs(6000));
  EXPECT_EQ(Choose({full, open}, request(2), 6000), 0) << "overdue: to its queue";
  full.num_waiting = 1;
  EXPECT_EQ(Choose({full, open}, request(3), 1500), 0);
  // As many wait for it as make its queue longer than the prompt: those behind take the other.
  full.num_waiting = full.free_slots;
  std::vector<Waiting> line;
  for (uint64_t id = 10; id < 60; ++id) line.push_back(request(id));
  const Assignment out = Assign({full, open}, line, 1500);
  ASSERT_FALSE(out.placements.empty());
  EXPECT_LT(out.placements.size(), line.size());
  for (const Placement& placement : out.placements) {
    EXPECT_EQ(placement.worker, WorkerId{1});
    EXPECT_GT(placement.request, RequestId{10});
  }
}

TEST_F(SloPolicyTest, ShedsWhatMayBeShedWithThePredictedWait) {
  Teach(&policy_, {kFast});
  WorkerLoad worker = DecodingWorker(0, 10, 10'000);
  worker.waiting_tokens = 100'000;
  worker.num_waiting = 20;
  const Assignment out = Assign({worker}, {Request(1, 1000, 0, -1), Request(2, 1000, 0, 0)});
  EXPECT_TRUE(out.placements.empty());
  ASSERT_EQ(out.shed.size(), 1u);
  const Shed& shed = out.shed[0];
  EXPECT_EQ(shed.request, RequestId{1});
  EXPECT_FALSE(shed.tpot);
  EXPECT_EQ(shed.target, Duration::Milliseconds(1000));
  // 101,000 tokens in passes of 2038 of 62.. ms each.
  EXPECT_NEAR(shed.wait.milliseconds(), 101'000 * 0.05 + 50 * 12, 20);
  EXPECT_NEAR(shed.predicted.milliseconds(), shed.wait.milliseconds(), 1e-5);

  Waiting again = Request(3, 1000, 0, -1);
  again.replayed = true;
  EXPECT_EQ(Choose({worker}, again), -1) << "its first tokens were sent";
  const Assignment slow = Assign({DecodingWorker(0, 40, 10'000)}, {Request(4, 1000, 12, -1)});
  ASSERT_EQ(slow.shed.size(), 1u);
  EXPECT_TRUE(slow.shed[0].tpot);
  EXPECT_NEAR(slow.shed[0].predicted.milliseconds(), 10 + 4.1 + 1.1, 0.1);
  EXPECT_EQ(Choose({IdleWorker(0)}, Request(5, 1, 1, -1)), 0) << "an idle worker can only be asked";
}

TEST_F(SloPolicyTest, HigherPriorityFirst) {
  Teach(&policy_, {kFast});
  // Room for one more at this TPOT: 10 + .1 b + 1e-4 tokens <= 14.4.
  const std::vector<WorkerLoad> workers = {DecodingWorker(0, 33, 8000)};
  const Assignment out =
      Assign(workers, {Request(1, 9000, 16, 0), Request(2, 9000, 16, 5), Request(3, 9000, 16, 2)});
  ASSERT_EQ(out.placements.size(), 1u);
  EXPECT_EQ(out.placements[0].request, RequestId{2});
}

// Jain's index of what two tenants get of one worker, of which the first asks for four times as much, in
// requests of half the size.
double FairnessOfTwoTenants(SloPolicy* policy, const Slo& slo) {
  Teach(policy, {kFast});
  std::vector<Waiting> pool;
  std::vector<double> ends;  // ms, of those that run
  double served[2] = {};
  uint64_t next = 0;
  for (double ms = 0; ms < 30'000; ms += 50) {
    ends.erase(std::remove_if(ends.begin(), ends.end(), [&](double end) { return end <= ms; }), ends.end());
    for (const uint32_t tenant : {0u, 1u}) {
      const auto its = [&](const Waiting& w) { return w.tenant == tenant; };
      for (auto left = 32 / (1 + 3 * tenant) - std::count_if(pool.begin(), pool.end(), its); left > 0;
           --left) {
        pool.push_back({.request = RequestId{++next},
                        .arrival = AtMs(ms),
                        .prompt_tokens = tenant == 0 ? 300 : 600,
                        .max_new_tokens = 100,
                        .slo = slo,
                        .tenant = tenant});
      }
    }
    const auto running = static_cast<int32_t>(ends.size());
    WorkerLoad worker = DecodingWorker(0, running, running * 500);
    worker.free_slots = 12 - running;
    worker.state_at = AtMs(ms);
    Assignment out;
    policy->Assign({{&worker, 1}}, pool, AtMs(ms), &out);
    for (const Placement& placement : out.placements) {
      const auto placed = std::find_if(pool.begin(), pool.end(),
                                       [&](const Waiting& w) { return w.request == placement.request; });
      if (ms > 3000) served[placed->tenant] += placed->prompt_tokens + placed->max_new_tokens;
      ends.push_back(ms + 400);
      pool.erase(placed);
    }
  }
  EXPECT_GT(served[0] + served[1], 50'000);
  const double sum = served[0] + served[1];
  return sum * sum / (2 * (served[0] * served[0] + served[1] * served[1]));
}

TEST_F(SloPolicyTest, SaturatedTenantsGetEqualShares) {
  const Slo slo = {Duration::Milliseconds(60'000), Duration::Milliseconds(12)};
  EXPECT_GT(FairnessOfTwoTenants(&policy_, slo), 0.95);
  EXPECT_GT(FairnessOfTwoTenants(std::make_unique<SloPolicy>(SloOptions{}).get(), Slo{}), 0.95);
}

TEST_F(SloPolicyTest, WithoutTargetsItWaitsForRoomAloneAndNobodyWithTargetsForIt) {
  Teach(&policy_, {kFast, kFast});
  std::vector<WorkerLoad> workers = {DecodingWorker(0, 4, 4000), DecodingWorker(1, 4, 4000)};
  for (WorkerLoad& worker : workers) worker.waiting_tokens = 4096, worker.num_waiting = 2;
  EXPECT_EQ(Choose(workers, Request(1, 0, 0)), -1);
  EXPECT_TRUE(policy_.NextWake().is_never());
  EXPECT_EQ(Choose(workers, Request(2, 5000, 0)), 0);
  workers[1].waiting_tokens = 4095;
  EXPECT_EQ(Choose(workers, Request(1, 0, 0)), 1);
  workers[1].free_slots = 2;
  EXPECT_EQ(Choose(workers, Request(1, 0, 0)), -1) << "both slots are taken by those that wait there";
}

// A cluster that is full to the brim: what waits is weighed when it comes, then 64 of all in a call, and
// those that nobody can run, or that wait for room alone, take nobody's place among them.
TEST_F(SloPolicyTest, ACallWeighsABoundedNumber) {
  Teach(&policy_, {kFast});
  std::vector<WorkerLoad> workers = {DecodingWorker(0, 4, 4000)};
  workers[0].waiting_tokens = 1'000'000, workers[0].num_waiting = 500;
  std::vector<Waiting> waiting;
  for (uint64_t i = 0; i < 600; ++i) {
    waiting.push_back(Request(i, i % 3 == 0 ? 0 : 60'000, 0));
    waiting.back().arrival = AtMs(static_cast<double>(i));
    EXPECT_TRUE(Assign(workers, waiting, static_cast<double>(i)).placements.empty());
  }
  const Assignment again = Assign(workers, waiting, 601);
  EXPECT_TRUE(again.placements.empty());
  EXPECT_EQ(again.why.work, 64);
  // Many at the same instant are each new once.
  for (uint64_t i = 600; i < 700; ++i) {
    waiting.push_back(Request(i, 60'000, 0));
    waiting.back().arrival = AtMs(700);
    EXPECT_EQ(Assign(workers, waiting, 700).why.work, 65);
  }
}

TEST(SloPolicy, WhoeverMeetsTargetsIsNotHeldUpByFairness) {
  std::vector<std::vector<Placement>> runs;
  for (const bool tenants : {false, true}) {
    SloPolicy policy{SloOptions{}};
    Teach(&policy, {kFast, kFast, kSlow});
    std::vector<Placement> all;
    for (uint64_t i = 0; i < 200; ++i) {
      const auto busy = static_cast<int32_t>(i % 7);
      const std::vector<WorkerLoad> workers = {DecodingWorker(0, busy, busy * 700),
                                               DecodingWorker(1, 6 - busy, 2000), DecodingWorker(2, 1, 100)};
      Waiting request{.request = RequestId{i}, .arrival = AtMs(static_cast<double>(i) * 10)};
      request.prompt_tokens = 100 + static_cast<int32_t>(i * 37 % 900);
      request.max_new_tokens = 50;
      request.slo = {Duration::Milliseconds(2000), Duration::Milliseconds(100)};
      if (tenants) request.tenant = i % 5 == 0 ? 1 : 0;
      Assignment out;
      policy.Assign({workers}, absl::MakeConstSpan(&request, 1), request.arrival, &out);
      ASSERT_EQ(out.placements.size(), 1u);
      all.push_back(out.placements[0]);
    }
    runs.push_back(all);
  }
  for (size_t i = 0; i < runs[0].size(); ++i) EXPECT_EQ(runs[0][i].worker, runs[1][i].worker);
}

TEST(SloPolicy, WhateverComesIsPlacedOnceWhereItCanRunAndInBoundedTime) {
  RandomStream random(3);
  size_t placed = 0, shed = 0;
  for (int history = 0; history < 60; ++history) {
    SloPolicy policy{SloOptions{.wait_ms = 100}};
    if (history % 4 > 0) Teach(&policy, {kFast, kSlow, kFast}, 50);
    std::vector<Waiting> pool;
    std::set<uint64_t> gone;
    uint64_t next = 0;
    double ms = 0;
    for (int turn = 0; turn < 60; ++turn, ms += static_cast<double>(random.Below(40))) {
      for (uint64_t n = random.Below(4); n > 0; --n) {
        Waiting request{.request = RequestId{++next}, .arrival = AtMs(ms)};
        request.prompt_tokens = 1 + static_cast<int32_t>(random.Below(3000));
        request.max_new_tokens = 1 + static_cast<int32_t>(random.Below(300));
        request.num_samples = 1 + static_cast<int32_t>(random.Below(3));
        request.priority = static_cast<int32_t>(random.Below(4)) - 1;
        request.tenant = static_cast<uint32_t>(random.Below(3));
        request.replayed = random.Below(8) == 0;
        if (random.Below(3) > 0) request.slo.ttft = Duration::Milliseconds(1 + random.Below(400));
        if (random.Below(3) > 0) request.slo.tpot = Duration::Milliseconds(1 + random.Below(40));
        pool.push_back(request);
      }
      std::vector<WorkerLoad> workers;
      for (uint32_t w = 0; w < 3; ++w) {
        if (random.Below(10) == 0) continue;
        WorkerLoad load = DecodingWorker(w, static_cast<int32_t>(random.Below(60)),
                                         static_cast<int64_t>(random.Below(40'000)));
        load.accepts = random.Below(5) > 0;
        load.free_slots = 64 - load.num_running;
        load.max_context = 1 << (9 + random.Below(4));
        load.kv_capacity_tokens = 50'000;
        load.num_waiting = static_cast<int32_t>(random.Below(3));
        load.waiting_tokens = load.num_waiting * static_cast<int64_t>(random.Below(4000));
        load.num_bound += load.num_waiting;
        load.state_at = AtMs(ms - static_cast<double>(random.Below(20)));
        workers.push_back(load);
      }
      Assignment out;
      policy.Assign({workers}, pool, AtMs(ms), &out);
      EXPECT_GT(policy.NextWake(), AtMs(ms));
      const auto take = [&](RequestId id) {
        const auto found =
            std::find_if(pool.begin(), pool.end(), [&](const Waiting& w) { return w.request == id; });
        EXPECT_TRUE(found != pool.end());
        EXPECT_TRUE(gone.insert(Value(id)).second);
        const Waiting request = *found;
        pool.erase(found);
        return request;
      };
      for (const Placement& placement : out.placements) {
        const Waiting request = take(placement.request);
        const auto worker = std::find_if(workers.begin(), workers.end(), [&](const WorkerLoad& load) {
          return load.worker == placement.worker;
        });
        ASSERT_TRUE(worker != workers.end());
        EXPECT_TRUE(worker->accepts && CanRun(request, *worker));
        worker->sent_tokens += request.prompt_tokens;
        worker->num_sent += request.num_samples;
        ++placed;
      }
      for (const Shed& one : out.shed) {
        const Waiting request = take(one.request);
        EXPECT_LT(request.priority, 0);
        EXPECT_FALSE(request.replayed);
        ++shed;
      }
      for (const Waiting& request : pool) {
        const auto runs = [&](const WorkerLoad& load) { return load.accepts && CanRun(request, load); };
        const bool could = std::any_of(workers.begin(), workers.end(), runs);
        const bool room = std::any_of(workers.begin(), workers.end(), [&](const WorkerLoad& load) {
          return runs(load) && load.waiting_tokens + load.sent_tokens < 4096 &&
                 load.num_waiting + load.num_sent < load.free_slots;
        });
        const bool none = request.slo.ttft.is_infinite() && request.slo.tpot.is_infinite();
        const Duration target = request.slo.ttft.is_infinite() ? Duration{} : request.slo.ttft;
        const bool over = AtMs(ms) >= request.arrival + target + Duration::Milliseconds(100);
        EXPECT_FALSE(none ? room : could && over) << "request " << Value(request.request) << " is kept";
      }
    }
  }
  EXPECT_GT(placed, 2000u);
  EXPECT_GT(shed, 100u);
}

TEST(SloPolicy, TheRouterRefusesWhatIsShed) {
  auto owned = std::make_unique<SloPolicy>(SloOptions{});
  Teach(owned.get(), {kFast});
  RouterCore core(AdmissionLimits{}, std::move(owned));
  RouterOutput out;
  core.OnWorkerUp({.worker = WorkerId{0},
                   .incarnation = 1,
                   .kv_capacity_tokens = 1 << 20,
                   .max_context = 1 << 16,
                   .slots = 64},
                  Time{}, &out);
  const auto arrive = [&](uint64_t id, int32_t priority) {
    Submit submit;
    submit.key.request = RequestId{id};
    submit.num_prompt = 50'000;
    submit.stop.max_tokens = 10;
    submit.priority = priority;
    submit.slo.ttft = Duration::Milliseconds(4000);
    return core.OnArrival(submit, 2, AtMs(0), &out);
  };
  ASSERT_TRUE(arrive(1, -1).ok());
  ASSERT_EQ(out.dispatch.size(), 2u);
  ASSERT_TRUE(arrive(2, 0).ok());
  EXPECT_EQ(core.num_pooled(), 1);
  ASSERT_TRUE(arrive(3, -1).ok());
  ASSERT_EQ(out.ended.size(), 2u);
  for (const EndedSample& ended : out.ended) {
    EXPECT_EQ(ended.key.request, RequestId{3});
    EXPECT_EQ(ended.finish, FinishReason::kError);
    const auto refusal = RefusalOf(ended.why);
    ASSERT_TRUE(refusal.has_value());
    EXPECT_EQ(refusal->reason, RefusalReason::kShed);
    EXPECT_EQ(refusal->field, "slo.ttft");
    EXPECT_EQ(refusal->limit, 4000);
    EXPECT_GT(refusal->predicted_wait, Duration::Milliseconds(5000));
  }
  EXPECT_EQ(core.counters().shed, 1u);
  EXPECT_EQ(core.num_pooled(), 1);
  EXPECT_EQ(core.queued_tokens(), 100'000);
}

TEST(TenantShares, ForgetsWithTimeAndIsBounded) {
  TenantShares shares(Duration::Seconds(10));
  shares.Decay(AtMs(0));
  for (uint32_t tenant = 0; tenant < 5000; ++tenant) shares.Add(tenant, tenant + 1);
  EXPECT_EQ(shares.size(), TenantShares::kMostTenants);
  EXPECT_EQ(shares.Served(4999), 5000);
  EXPECT_EQ(shares.Served(0), 0) << "had least";
  shares.Decay(AtMs(10'000));
  EXPECT_NEAR(shares.Served(4999), 2500, 1e-6);
  shares.Decay(AtMs(1'000'000));
  EXPECT_EQ(shares.size(), 0u);
}

TEST(SloPolicy, IsFoundByName) {
  EXPECT_TRUE(NewRoutePolicy("slo:margin=0.2,wait_ms=10,fair_ms=500").ok());
  EXPECT_FALSE(NewRoutePolicy("slo:margin=2").ok());
}

}  // namespace
}  // namespace orrery
