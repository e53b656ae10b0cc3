// vtc and justitia: the worked examples (UT-8.3, UT-8.2 of the design), the lift, the fairness bound on a
// random overload, and the fluid system of equal shares.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/policy/justitia.h"
#include "scheduler/policy/step_pace.h"
#include "scheduler/policy/vtc.h"
#include "tests/scheduler/policy/decide.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;

// Arrivals and steps of a policy until nothing is left; every step takes a second.
class Playground {
 public:
  Playground(VtcPolicy* policy, int32_t rows, int32_t blocks) : policy_(policy) {
    scene_.limits = {.max_step_tokens = 4096, .max_num_seqs = rows, .block_tokens = 1};
    scene_.blocks_free = scene_.blocks_total = blocks;
    scene_.free_slots = rows;
  }

  void Arrive(uint32_t tenant, int32_t input, int32_t output) {
    SequenceView view = WaitingView(++last_id_, input, scene_.now, output);
    view.tenant = tenant;
    policy_->OnArrival(view, scene_.now);
    scene_.waiting.push_back(view);
  }

  void Step() {
    BatchDecision decision;
    policy_->Plan(scene_.view(), scene_.now, &decision);
    EXPECT_TRUE(decision.preempt.empty());
    scene_.now = scene_.now + Duration::Seconds(1);
    for (const Grant& grant : decision.admit) {
      const auto at = std::find_if(scene_.waiting.begin(), scene_.waiting.end(),
                                   [&](const SequenceView& view) { return view.id == grant.sequence; });
      at->first_scheduled = scene_.now;
      started_.push_back(at->tenant);
      work_[at->tenant] += at->num_prompt;
      scene_.running.push_back(*at);
      scene_.waiting.erase(at);
      --scene_.free_slots;
    }
    std::vector<Grant> grants = decision.run;
    grants.insert(grants.end(), decision.admit.begin(), decision.admit.end());
    for (const Grant& grant : grants) Grow(grant);
    scene_.blocks_free = scene_.blocks_total;
    for (const SequenceView& view : scene_.running) scene_.blocks_free -= view.num_blocks;
    EXPECT_GE(scene_.blocks_free, 0);
  }

  void StopAt(int32_t output) { stop_at_ = output; }
  bool idle() const { return scene_.running.empty() && scene_.waiting.empty(); }
  const std::vector<uint32_t>& started() const { return started_; }
  double work(uint32_t tenant) { return work_[tenant]; }
  size_t num_waiting(uint32_t tenant) const {
    return static_cast<size_t>(std::count_if(scene_.waiting.begin(), scene_.waiting.end(),
                                             [&](const SequenceView& v) { return v.tenant == tenant; }));
  }

 private:
  void Grow(const Grant& grant) {
    const auto at = std::find_if(scene_.running.begin(), scene_.running.end(),
                                 [&](const SequenceView& view) { return view.id == grant.sequence; });
    at->num_computed += grant.count;
    at->num_blocks = at->num_computed;
    if (at->num_computed < at->num_tokens) return;
    ++at->num_tokens;
    ++at->num_generated;
    work_[at->tenant] += 2;
    if (at->num_generated < (stop_at_ > 0 ? stop_at_ : at->max_new_tokens)) return;
    policy_->OnFinished(*at, scene_.now);
    scene_.running.erase(at);
    ++scene_.free_slots;
  }

  VtcPolicy* policy_;
  Scene scene_;
  uint64_t last_id_ = 0;
  int32_t stop_at_ = 0;  // tokens after which everybody stops; 0: at the bound
  std::vector<uint32_t> started_;
  std::map<uint32_t, double> work_;
};

constexpr uint32_t kA = 1, kB = 2;

TEST(Vtc, Ut83LiftAndTurns) {
  VtcPolicy policy({});
  Playground play(&policy, 1, 1000);
  for (int i = 0; i < 3; ++i) play.Arrive(kA, 4, 2);
  for (int step = 0; step < 4; ++step) play.Step();  // two of A
  EXPECT_EQ(policy.counter(kA), 16);
  play.Arrive(kB, 10, 1);
  play.Arrive(kB, 10, 1);
  EXPECT_EQ(policy.counter(kB), 16) << "lifted to the least of those who wait";
  play.Step();
  play.Step();
  EXPECT_EQ(policy.counter(kA), 24) << "the tie goes to the earlier request";
  play.Step();
  EXPECT_EQ(policy.counter(kB), 28);
  play.Step();
  EXPECT_EQ(policy.counter(kB), 40);
  EXPECT_TRUE(play.idle());
  EXPECT_THAT(play.started(), ElementsAre(kA, kA, kA, kB, kB));
}

TEST(Vtc, NoLiftWhileNobodyElseWaits) {
  VtcPolicy policy({});
  Playground play(&policy, 2, 1000);
  play.Arrive(kA, 100, 5);
  play.Step();  // A runs, and waits no more
  play.Arrive(kB, 4, 2);
  EXPECT_EQ(policy.counter(kB), 0) << "running requests do not lift";
}

TEST(Vtc, Ut83ProfiledCost) {
  EXPECT_NEAR(ProfiledCost(256, 256), 554.797, 5e-4);
  EXPECT_NEAR(ProfiledCost(512, 128), 436.055, 5e-4);
  EXPECT_EQ(ProfiledCost(0, 0), 1.146);
  VtcPolicy policy({.profiled = true});
  Playground play(&policy, 1, 1000);
  play.Arrive(kA, 20, 9);
  while (!play.idle()) play.Step();
  EXPECT_NEAR(policy.counter(kA), ProfiledCost(20, 9), 1e-9) << "increments add up to the whole";
}

// Without a predictor the bound is the prediction: charged at once, and given back as far as it was not made.
TEST(Vtc, PredictedOutputIsChargedAtAdmissionAndSettledAtTheEnd) {
  for (const bool profiled : {false, true}) {
    VtcPolicy policy({.profiled = profiled, .predict = 0.5});
    const auto work = [&](double in, double out) { return profiled ? ProfiledCost(in, out) : in + 2 * out; };
    Playground play(&policy, 1, 1000);
    play.Arrive(kA, 20, 9);
    play.Step();
    EXPECT_NEAR(policy.counter(kA), work(20, 9), 1e-9) << "all of it with the first token";
    play.StopAt(4);
    while (!play.idle()) play.Step();
    EXPECT_NEAR(policy.counter(kA), work(20, 4), 1e-9);
  }
}

// Who asks for little at a time but lets its requests run is charged before the others have waited for it.
TEST(Vtc, PredictionCountsWhatRunsBeforeItIsMade) {
  for (const double predict : {0.0, 0.5}) {
    VtcPolicy policy({.predict = predict});
    Playground play(&policy, 3, 1000);
    for (int i = 0; i < 3; ++i) play.Arrive(kA, 4, 50);
    for (int i = 0; i < 3; ++i) play.Arrive(kB, 10, 2);
    play.Step();
    // As they come: A (4 + 2), B (10 + 2), A again. As predicted A is at 104 after its first.
    if (predict == 0) {
      EXPECT_THAT(play.started(), ElementsAre(kA, kB, kA));
    } else {
      EXPECT_THAT(play.started(), ElementsAre(kA, kB, kB));
    }
  }
}

TEST(Vtc, PriorityIsAWeight) {
  VtcPolicy policy({.priority_weight = 2});
  SequenceView view = WaitingView(1, 8);
  view.tenant = kA;
  view.priority = 2;
  policy.OnArrival(view, {});
  Scene scene;
  scene.waiting = {view};
  Decide(&policy, scene);
  EXPECT_EQ(policy.counter(kA), (8 + 2) / 4.0);
}

TEST(Vtc, NoPriorityIsFreeOrBeyondPrice) {
  VtcPolicy policy({.priority_weight = 1000});
  Scene scene;
  scene.waiting = {WaitingView(1, 8), WaitingView(2, 8)};
  scene.waiting[0].priority = std::numeric_limits<int32_t>::max();
  scene.waiting[1].priority = std::numeric_limits<int32_t>::min();
  for (uint32_t i = 0; i < 2; ++i) {
    scene.waiting[i].tenant = kA + i;
    policy.OnArrival(scene.waiting[i], {});
  }
  EXPECT_EQ(Decide(&policy, scene).size(), 2u);
  EXPECT_GT(policy.counter(kA), 0);
  EXPECT_TRUE(std::isfinite(policy.counter(kB)));
}

// Who was preempted waits with a slot of its own: that must not make its tenant look as if it waited less.
TEST(Vtc, APreemptedOneDoesNotSaveItsTenantTheLift) {
  VtcPolicy policy({});
  const auto of = [](SequenceView view, uint32_t tenant) {
    view.tenant = tenant;
    return view;
  };
  Scene scene;
  scene.waiting = {of(WaitingView(1, 50), kB)};
  policy.OnArrival(scene.waiting[0], {});
  Decide(&policy, scene);
  policy.OnArrival(of(WaitingView(2, 50), kB), {});  // behind slots that are all taken
  scene.free_slots = 0;
  SequenceView preempted = of(WaitingView(3, 20), kA);
  preempted.first_scheduled = Time{};
  preempted.num_preemptions = 1;
  scene.waiting = {preempted};
  ASSERT_EQ(Decide(&policy, scene).size(), 1u);
  policy.OnArrival(of(WaitingView(4, 20), kA), {});
  EXPECT_EQ(policy.counter(kA), policy.counter(kB));
}

TEST(StepPace, StepsThatPassTogetherCountAsSoMany) {
  StepPace pace;
  pace.Follow({.steps = 5000, .time = Duration::Milliseconds(50000)});
  EXPECT_NEAR(pace.mean_step().milliseconds(), 10, 1e-9);
  pace.Follow({.steps = 5500, .time = Duration::Milliseconds(60000)});
  EXPECT_NEAR(pace.mean_step().milliseconds(), 15, 1e-9) << "half the window at 10, half at 20";
}

TEST(Vtc, StopsAtTheHeadOfTheLeastCounter) {
  VtcPolicy policy({});
  Scene scene;
  scene.blocks_free = scene.blocks_total = 10;  // 160 tokens
  scene.waiting = {WaitingView(1, 40, {}, 40), WaitingView(2, 100, {}, 40), WaitingView(3, 10, {}, 10)};
  for (SequenceView& view : scene.waiting) policy.OnArrival(view, {});
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 1:40")) << "80 + 140 tokens do not fit; no skipping";
}

// Two tenants who always have requests waiting: |W_f - W_g| <= 2 max(w_p L_input, w_q M).
TEST(Vtc, BackloggedTenantsStayWithinTheBound) {
  constexpr int32_t kMemory = 200, kInput = 60;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    RandomStream random(seed);
    VtcPolicy policy({});
    Playground play(&policy, 16, kMemory);
    const auto arrive = [&](uint32_t tenant) {
      // B's requests are much larger than A's.
      const auto size = tenant == kA ? 10 : kInput;
      play.Arrive(tenant, static_cast<int32_t>(1 + random.Below(static_cast<uint64_t>(size))),
                  static_cast<int32_t>(1 + random.Below(static_cast<uint64_t>(size))));
    };
    for (int step = 0; step < 500; ++step) {
      for (const uint32_t tenant : {kA, kB}) {
        while (play.num_waiting(tenant) < 20) arrive(tenant);
      }
      play.Step();
      EXPECT_LE(std::abs(play.work(kA) - play.work(kB)), 2 * std::max(kInput, 2 * kMemory)) << seed;
    }
    EXPECT_GT(play.work(kA), 1000);
  }
}

TEST(Vtc, ForgetsIdleTenantsWhenThereAreTooMany) {
  VtcPolicy policy({});
  Scene scene;
  scene.limits = {.max_step_tokens = 1 << 20, .max_num_seqs = 1 << 20, .block_tokens = 16};
  scene.blocks_free = scene.blocks_total = 1 << 20;
  const auto arrive = [&](uint32_t tenant) {
    SequenceView view = WaitingView(tenant, 10, {}, 5);
    view.tenant = tenant;
    policy.OnArrival(view, {});
    scene.waiting.push_back(view);
  };
  for (uint32_t tenant = 1; tenant <= VtcPolicy::kMaxTenants; ++tenant) arrive(tenant);
  scene.free_slots = VtcPolicy::kMaxTenants;
  Decide(&policy, scene);
  EXPECT_EQ(policy.counter(1), 12) << "served, idle and known";
  scene.waiting.clear();
  arrive(VtcPolicy::kMaxTenants + 1);
  scene.blocks_free = 0;
  Decide(&policy, scene);
  EXPECT_EQ(policy.counter(1), 0) << "forgotten";
}

TEST(Justitia, Ut82aCosts) {
  EXPECT_EQ(KvTokenSteps(100, 50), 6250);
  EXPECT_EQ(KvTokenSteps(1000, 10), 10050);
  EXPECT_EQ(KvTokenSteps(100, 50) + KvTokenSteps(200, 20), 10450);
}

// UT-8.2b: 100 per second; 1,000 at 0 s and 300 at 2 s.
TEST(Justitia, Ut82bFluidShares) {
  FairClock clock;
  clock.Advance(AtMs(0), 100);
  EXPECT_EQ(clock.Arrive(1, 1000), 1000);
  clock.Advance(AtMs(2000), 100);
  EXPECT_EQ(clock.virtual_time(), 200);
  EXPECT_EQ(clock.Arrive(2, 300), 500);
  clock.Advance(AtMs(7999), 100);
  EXPECT_EQ(clock.active(), 2u);
  clock.Advance(AtMs(8001), 100);
  EXPECT_EQ(clock.active(), 1u) << "the second is finished after 8 s";
  clock.Advance(AtMs(12999), 100);
  EXPECT_EQ(clock.active(), 1u);
  clock.Advance(AtMs(13001), 100);
  EXPECT_EQ(clock.active(), 0u) << "the first after 13 s";
  EXPECT_NEAR(clock.virtual_time(), 1000, 1e-9);
}

TEST(Justitia, AnApplicationsTagGrowsWithItsRequests) {
  FairClock clock;
  EXPECT_EQ(clock.Arrive(1, 1000), 1000);
  EXPECT_EQ(clock.Arrive(1, 50), 1050);
  EXPECT_EQ(clock.active(), 1u);
  clock.Advance(AtMs(20000), 100);
  EXPECT_EQ(clock.Arrive(1, 50), 1100) << "finished long ago: from the virtual time on";
}

// Random arrivals: a request served alone in the order of tags is done no later than in the fluid system plus
// the largest cost (packet-by-packet fair queueing).
TEST(Justitia, NobodyIsMuchLaterThanUnderEqualShares) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    RandomStream random(seed);
    struct Job {
      double arrival, cost, tag = 0, fluid = 0, done = 0;
    };
    std::vector<Job> jobs;
    double at = 0;
    for (int i = 0; i < 60; ++i) {
      at += static_cast<double>(random.Below(1000)) / 100;
      jobs.push_back({at, static_cast<double>(1 + random.Below(1000))});
    }
    FairClock clock;
    const auto time = [](double seconds) { return Time{} + Duration::Seconds(seconds); };
    // The fluid system by brute force, in small steps.
    constexpr double kStep = 0.01;
    size_t next = 0;
    std::vector<double> left(jobs.size(), 0);
    size_t unfinished = 0;
    for (double now = 0; next < jobs.size() || unfinished > 0; now += kStep) {
      for (; next < jobs.size() && jobs[next].arrival <= now; ++next) {
        clock.Advance(time(now), 100);
        jobs[next].tag = clock.Arrive(next, jobs[next].cost);
        left[next] = jobs[next].cost;
        ++unfinished;
      }
      clock.Advance(time(now), 100);
      EXPECT_LE(std::abs(static_cast<double>(clock.active()) - static_cast<double>(unfinished)), 3);
      const double share = unfinished == 0 ? 0 : 100 * kStep / static_cast<double>(unfinished);
      for (size_t i = 0; i < next; ++i) {
        if (left[i] <= 0) continue;
        left[i] -= share;
        if (left[i] > 0) continue;
        jobs[i].fluid = now + kStep;
        --unfinished;
      }
    }
    // One at a time by tag.
    double now = 0;
    for (size_t served = 0; served < jobs.size(); ++served) {
      Job* best = nullptr;
      double first = 1e18;
      for (Job& job : jobs) {
        if (job.done > 0) continue;
        first = std::min(first, job.arrival);
        if (job.arrival <= now && (best == nullptr || job.tag < best->tag)) best = &job;
      }
      if (best == nullptr) {
        now = first;
        --served;
        continue;
      }
      now += best->cost / 100;
      best->done = now;
      EXPECT_LE(best->done, best->fluid + 1000. / 100 + 0.1) << seed;
    }
  }
}

TEST(Justitia, ServesInTheOrderOfFairFinish) {
  JustitiaPolicy policy({.quantile = 1, .peak_quantile = 1});
  Scene scene;
  scene.limits.max_step_tokens = 50;
  scene.totals = {.steps = 1, .time = Duration::Milliseconds(1000), .prefill_tokens = 0};
  scene.waiting = {WaitingView(1, 100, {}, 100), WaitingView(2, 100, {}, 10)};
  for (const SequenceView& view : scene.waiting) policy.OnArrival(view, {});
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 2:50"));
  // A third one that is as short but came much later: virtual time has passed the first one's tag.
  scene.now = AtMs(1000);
  scene.waiting = {WaitingView(1, 100, {}, 100), WaitingView(3, 100, AtMs(1000), 10)};
  policy.OnArrival(scene.waiting[1], scene.now);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 1:50"));
}

// UT-8.2b as served: ten requests of the first application and, when two are done, three of the second, each
// worth a second of the engine: the second runs from 2 to 5 s and the first ends at 13, at equal shares 8 and
// 13.
TEST(Justitia, Ut82bTheSecondApplicationRunsFirst) {
  JustitiaPolicy policy({.quantile = 1, .peak_quantile = 1});
  Scene scene;
  scene.limits = {.max_step_tokens = 512, .max_num_seqs = 1, .block_tokens = 1};
  scene.blocks_free = scene.blocks_total = 100;  // and a step takes a second: 100 token-steps per second
  scene.totals = {.steps = 1, .time = Duration::Seconds(1)};
  const auto arrive = [&](uint32_t application, int count) {
    for (int i = 0; i < count; ++i) {
      SequenceView view = WaitingView(10 * application + static_cast<uint64_t>(i), 5, scene.now, 10);
      view.application = application;  // 5 * 10 + 10^2 / 2 = 100
      policy.OnArrival(view, scene.now);
      scene.waiting.push_back(view);
    }
  };
  std::map<uint32_t, int64_t> ended;
  arrive(1, 10);
  while (!scene.waiting.empty()) {
    if (scene.now == AtMs(2000)) arrive(2, 3);
    BatchDecision decision;
    policy.Plan(scene.view(), scene.now, &decision);
    ASSERT_EQ(decision.admit.size(), 1u);
    const auto at = std::find_if(scene.waiting.begin(), scene.waiting.end(), [&](const SequenceView& view) {
      return view.id == decision.admit[0].sequence;
    });
    scene.now = scene.now + Duration::Seconds(1);
    ended[at->application] = scene.now.ns / 1'000'000'000;
    policy.OnFinished(*at, scene.now);
    scene.waiting.erase(at);
  }
  EXPECT_EQ(ended[2], 5);
  EXPECT_EQ(ended[1], 13);
}

// Lengths predicted so much too long that the fluid system hardly moves, and short requests without end.
TEST(Justitia, LongOnesAreServedHoweverWrongThePredictions) {
  JustitiaPolicy policy({.quantile = 1, .peak_quantile = 1});
  Scene scene;
  scene.limits.max_step_tokens = 100;
  scene.totals = {.steps = 1, .time = Duration::Seconds(1e9), .prefill_tokens = 0};
  const SequenceView longer = WaitingView(1, 100, {}, 100);  // costs 15,000
  policy.OnArrival(longer, {});
  for (uint64_t id = 2; id < 20; ++id) {
    const SequenceView shorter = WaitingView(id, 100, {}, 10);  // 1,050
    policy.OnArrival(shorter, {});
    scene.waiting = {longer, shorter};
    const auto words = Decide(&policy, scene);
    ASSERT_EQ(words.size(), 1u);
    if (words[0] == "admit 1:100") {
      EXPECT_EQ(id, 16u) << "14 shorter ones cost as much";
      return;
    }
  }
  FAIL() << "never served";
}

}  // namespace
}  // namespace orrery
