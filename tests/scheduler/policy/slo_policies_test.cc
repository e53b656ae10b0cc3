// slai, edf, flow-prefill and jit: worked examples of the papers (UT-5b, UT-8.8, UT-8.4, UT-8.1 of the
// design) and what they do under pressure.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "scheduler/cost/step_cost.h"
#include "scheduler/policy/edf.h"
#include "scheduler/policy/flow_prefill.h"
#include "scheduler/policy/jit.h"
#include "scheduler/policy/slai.h"
#include "tests/scheduler/policy/decide.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;

// UT-5b: the last step ended at 10 s, a mean step takes 20 ms; TPOT 0.1, 0.2 and 0.5 s.
Scene Ut5b() {
  Scene scene;
  scene.now = AtMs(10000);
  scene.totals = {.steps = 50, .time = Duration::Milliseconds(1000)};
  for (const auto& [id, tpot_ms] : {std::pair{1, 500}, {2, 100}, {3, 200}}) {
    scene.running.push_back(
        DecodingView(static_cast<uint64_t>(id), 100, 5, AtMs(10000), Duration::Milliseconds(tpot_ms)));
  }
  // A prompt that takes all the budget there is.
  scene.running.push_back(PrefillingView(4, 1000, 0));
  return scene;
}

TEST(Slai, Ut5bDecodesWaitForTheirLastSchedulableTime) {
  Scene scene = Ut5b();
  SlaiPolicy policy({});
  // 10.0, 10.1 and 10.4 s with offset 5.
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 2:1", "run 4:511"));
  scene.now = AtMs(10099);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 2:1", "run 4:511"));
  scene.now = AtMs(10100);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 2:1", "run 3:1", "run 4:510"));
  scene.now = AtMs(10399);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 2:1", "run 3:1", "run 4:510"));
  scene.now = AtMs(10400);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 2:1", "run 3:1", "run 1:1", "run 4:509"));
}

TEST(Slai, Ut5bDecodesAreUrgentSoonerNearFullMemory) {
  Scene scene = Ut5b();
  SlaiPolicy policy({});
  // 9.9, 10.0 and 10.3 s with offset 10: from 96 % of the pool on.
  scene.blocks_free = 401;
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 2:1", "run 4:511"));
  scene.blocks_free = 400;
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 2:1", "run 3:1", "run 4:510"));
}

TEST(Slai, LeftoverBudgetGoesToDecodesThatCouldWait) {
  Scene scene = Ut5b();
  scene.running[3] = PrefillingView(4, 300, 0);
  scene.waiting = {WaitingView(5, 150, AtMs(9000)), WaitingView(6, 50, AtMs(9000))};
  SlaiPolicy policy({});
  // Short prompts first; 10 tokens of the budget are left for the two that are in no hurry.
  EXPECT_THAT(Decide(&policy, scene),
              ElementsAre("run 2:1", "run 4:300", "run 3:1", "run 1:1", "admit 6:50", "admit 5:150"));
}

TEST(Slai, AgingLetsTheLongPromptIn) {
  Scene scene;
  scene.now = AtMs(10000);
  scene.waiting = {WaitingView(1, 900, AtMs(0)), WaitingView(2, 50, AtMs(9500))};
  SlaiPolicy aging({.aging = 100}), plain({.aging = 0});
  EXPECT_THAT(Decide(&aging, scene), ElementsAre("admit 1:512"));
  EXPECT_THAT(Decide(&plain, scene), ElementsAre("admit 2:50", "admit 1:462"));
}

TEST(Slai, StopsAtTheFirstPromptWithoutBlocks) {
  Scene scene = Ut5b();
  scene.running.pop_back();
  scene.waiting = {WaitingView(5, 160, AtMs(9990)), WaitingView(6, 170, AtMs(9990))};
  scene.blocks_free = 9;  // 160 tokens take ten blocks; two of the decodes need none
  scene.blocks_total = 1000;
  SlaiPolicy policy({.watermark = 0});
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 2:1", "run 3:1", "run 1:1"));
}

TEST(Slai, AnUrgentDecodeTakesTheBlocksOfTheLastPrefill) {
  Scene scene = Ut5b();
  scene.now = AtMs(10050);
  scene.blocks_free = 0;
  scene.running[1] =
      DecodingView(2, 92, 5, AtMs(10000), Duration::Milliseconds(100));  // 96 tokens: full blocks
  scene.running[3] = PrefillingView(4, 1000, 160);
  scene.running.push_back(PrefillingView(5, 1000, 160));
  SlaiPolicy policy({});
  // Offset 10: 2 is urgent and 3 as well; the ten blocks of 5 pay for it and for some of 4.
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("preempt 5", "run 2:1", "run 3:1", "run 4:144", "run 1:1"));
}

TEST(Slai, SomebodyGoesOnWhenNobodyIsInAHurry) {
  Scene scene;
  scene.now = AtMs(10000);
  scene.blocks_free = 0;
  scene.totals = {.steps = 1, .time = Duration::Milliseconds(1)};
  for (const uint64_t id : {1, 2}) {
    scene.running.push_back(DecodingView(id, 92, 5, AtMs(10000), Duration::Milliseconds(500)));
  }
  SlaiPolicy policy({});
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("preempt 2", "run 1:1"));
}

// The published two-regime step time of an 8B model; milliseconds and tokens.
class TwoRegimes final : public StepCostModel {
 public:
  Duration Predict(const StepShape& shape) const override {
    const double np = shape.prefill_tokens, nd = shape.decodes, tokens = np + nd;
    const double context = static_cast<double>(shape.decode_context);
    const double us = tokens <= 512 ? 14936 + 58.82 * tokens + 22.48 * np + 36.35 * nd + 0.1111 * context
                                    : 5004 + 27.19 * tokens + 68.63 * np - 41.44 * nd + 0.1663 * context;
    return Duration::Nanoseconds(std::llround(us * 1e3));
  }
};

TEST(Edf, Ut88TheStepTimesOfTheExample) {
  const TwoRegimes cost;
  const std::pair<int, double> expected[] = {
      {128, 35.21}, {256, 47.70}, {512, 72.68}, {768, 96.47}, {1024, 125.91}};
  for (const auto& [tokens, ms] : expected) {
    StepShape shape;
    for (int i = 0; i < 32; ++i) shape.AddDecode(1000);
    shape.AddChunk(0, tokens - 32);
    EXPECT_NEAR(1.2 * cost.Predict(shape).milliseconds(), ms, 0.01) << tokens;
  }
}

// 32 decodes with a context of 32,000 and a prompt without end.
Scene Ut88(int64_t slack_ms) {
  Scene scene;
  scene.now = AtMs(1000);
  scene.limits = {.max_step_tokens = 4096, .max_num_seqs = 64, .block_tokens = 16};
  for (uint64_t id = 1; id <= 32; ++id) {
    // One token so far, at 1 s: the next is due a TPOT later.
    scene.running.push_back(DecodingView(id, 999, 1, AtMs(1000), Duration::Milliseconds(slack_ms)));
    scene.running.back().first_token_deadline = AtMs(900);
  }
  scene.waiting = {WaitingView(40, 9000)};
  return scene;
}

int32_t PromptTokens(BatchPolicy* policy, const Scene& scene) {
  BatchDecision decision;
  policy->Plan(scene.view(), scene.now, &decision);
  return decision.admit.empty() ? 0 : decision.admit.front().count;
}

TEST(Edf, Ut88StepsAsLargeAsTheLeastSlackAllows) {
  const TwoRegimes cost;
  EdfPolicy policy({});
  for (const auto& [slack_ms, tokens] : {std::pair{50, 224}, {100, 736}, {30, 96}, {5000, 2520}}) {
    Scene scene = Ut88(slack_ms);
    scene.cost = &cost;
    EXPECT_EQ(PromptTokens(&policy, scene), tokens) << slack_ms;
  }
  Scene scene = Ut88(5000);
  scene.cost = &cost;
  scene.blocks_free = 999;
  EXPECT_EQ(PromptTokens(&policy, scene), 512 - 32) << "memory is short";
  scene.cost = nullptr;
  EXPECT_EQ(PromptTokens(&policy, scene), 4096 - 32) << "without a model";
}

TEST(Edf, ATokenAheadOfItsPaceIsTimeInHand) {
  const TwoRegimes cost;
  EdfPolicy policy({.bank = false}), bank({});
  Scene scene = Ut88(30);
  scene.cost = &cost;
  for (SequenceView& view : scene.running) {
    view.num_generated = 3;  // since 970 ms: two tokens at most are due before 1,030, the third at 1,060
    view.first_token = AtMs(970);
    view.first_token_deadline = AtMs(2000);
    view.num_tokens += 2, view.num_computed += 2;
  }
  EXPECT_EQ(PromptTokens(&policy, scene), 256 - 32) << "60 ms";
  EXPECT_EQ(PromptTokens(&bank, scene), 2552 - 32) << "the first token was due at 2 s";
}

// A deadline and nothing else: 100 tokens at 100 ms, the last of them due when the request ends.
TEST(Edf, DecodesWithADeadlineAloneAreDueBeforeIt) {
  const TwoRegimes cost;
  EdfPolicy policy({.batch_tpot_ms = 100}), plain({.batch_tpot_ms = 100, .bank = false});
  Scene scene = Ut88(30);
  scene.cost = &cost;
  for (SequenceView& view : scene.running) {
    view.first_token = AtMs(970);
    view.first_token_deadline = view.next_token_deadline = Time::Never();
    view.deadline = AtMs(10970);
  }
  EXPECT_EQ(PromptTokens(&policy, scene), 256 - 32) << "the second token is due at 1,070 ms";
  EXPECT_EQ(PromptTokens(&plain, scene), 256 - 32);
  for (SequenceView& view : scene.running) view.deadline = AtMs(15970);
  EXPECT_EQ(PromptTokens(&policy, scene), 2552 - 32) << "5 s in hand";
  EXPECT_EQ(PromptTokens(&plain, scene), 256 - 32);
  for (SequenceView& view : scene.running) view.deadline = AtMs(1036);
  EXPECT_EQ(PromptTokens(&policy, scene), 128 - 32) << "over in 36 ms";
  EXPECT_EQ(PromptTokens(&plain, scene), 128 - 32);
}

TEST(Edf, Ut88KappaPutsTheShortPromptFirst) {
  EdfPolicy policy({});
  Scene scene;
  scene.limits.max_step_tokens = 100;
  SequenceView long_prompt = WaitingView(1, 4000), short_prompt = WaitingView(2, 200);
  long_prompt.first_token_deadline = AtMs(2000);   // + 4,000 * 0.008 s = 34.0
  short_prompt.first_token_deadline = AtMs(6000);  // + 200 * 0.008 s = 7.6
  scene.waiting = {long_prompt, short_prompt};
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 2:100"));
  EdfPolicy plain({.kappa = 0});
  EXPECT_THAT(Decide(&plain, scene), ElementsAre("admit 1:100"));
}

TEST(Edf, ALongPrefillPausesForAnUrgentPrompt) {
  EdfPolicy policy({.kappa = 0});
  Scene scene;
  scene.limits.max_step_tokens = 100;
  scene.running = {PrefillingView(1, 4000, 320)};
  scene.running[0].first_token_deadline = AtMs(900);
  scene.waiting = {WaitingView(2, 80)};
  scene.waiting[0].first_token_deadline = AtMs(200);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 1:20", "admit 2:80"));
  // Its claim on the rest of its blocks is respected: 230 blocks.
  scene.blocks_total = scene.blocks_free = 234;
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 1:100"));
}

TEST(Edf, RelegatesWhoCannotMakeItButNotForEver) {
  const auto cost = NewLinearCost({.alpha_prefill = 10, .per_token = 1});
  EdfPolicy policy({.kappa = 0, .relegate_s = 60});
  Scene scene;
  scene.cost = cost.get();
  scene.limits.max_step_tokens = 100;
  scene.now = AtMs(1000);
  scene.waiting = {WaitingView(1, 500), WaitingView(2, 500)};
  scene.waiting[0].first_token_deadline = AtMs(1500);  // takes 510 ms
  scene.waiting[1].first_token_deadline = AtMs(2000);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 2:100"));
  scene.waiting[1].first_token_deadline = AtMs(62000);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 1:100"));
  EdfPolicy stubborn({.kappa = 0, .relegate_s = 0});
  scene.waiting[1].first_token_deadline = AtMs(2000);
  EXPECT_THAT(Decide(&stubborn, scene), ElementsAre("admit 1:100"));
}

TEST(Edf, WithoutAModelThePaceSoFarTellsWhoIsLate) {
  EdfPolicy policy({.kappa = 0});
  Scene scene;
  scene.limits.max_step_tokens = 100;
  scene.waiting = {WaitingView(1, 500), WaitingView(2, 500)};
  scene.waiting[0].first_token_deadline = AtMs(400);
  scene.waiting[1].first_token_deadline = AtMs(600);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 1:100")) << "nothing measured yet";
  scene.totals = {
      .steps = 1, .time = AtMs(100) - Time{}, .prefill_tokens = 100, .prefill_time = AtMs(100) - Time{}};
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 2:100")) << "1,000 tokens per second";
}

// A deadline for the whole answer: its first token is due so much earlier as the rest takes.
TEST(Edf, ADeadlineAloneCountsBackFromTheEnd) {
  EdfPolicy policy({.ttft_ms = 1000, .batch_tpot_ms = 400, .kappa = 0});
  Scene scene;
  scene.limits.max_step_tokens = 100;
  scene.waiting = {WaitingView(1, 500), WaitingView(2, 500, {}, 100), WaitingView(3, 500, {}, 10)};
  scene.waiting[1].deadline = AtMs(40900);  // 100 tokens of 400 ms: 0.9 s
  scene.waiting[2].deadline = AtMs(4800);   // 10 tokens: 0.8 s
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 3:100"));
  scene.waiting.pop_back();
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 2:100"));
}

// One millisecond per prompt token.
std::unique_ptr<StepCostModel> MsPerToken() { return NewLinearCost({.per_token = 1}); }

// UT-8.4: X is due at 900 ms with 700 ms left; Y arrives, is due at 200 ms and takes 120.
Scene Ut84(const StepCostModel* cost, int32_t budget) {
  Scene scene;
  scene.cost = cost;
  scene.limits.max_step_tokens = budget;
  scene.running = {PrefillingView(1, 1020, 320)};
  scene.running[0].first_token_deadline = AtMs(900);
  scene.waiting = {WaitingView(2, 120)};
  scene.waiting[0].first_token_deadline = AtMs(200);
  return scene;
}

TEST(FlowPrefill, Ut84AnUrgentPromptGoesBeforeALongOne) {
  const auto cost = MsPerToken();
  FlowPrefillPolicy policy({});
  Scene scene = Ut84(cost.get(), 100);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 2:100"));
  // 20 tokens of Y are left at 100 ms; X may have as much of the step as ends before Y is due.
  scene.now = AtMs(100);
  scene.waiting.clear();
  scene.running.push_back(PrefillingView(2, 120, 100));
  scene.running[1].first_token_deadline = AtMs(200);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 2:20", "run 1:80"));
  // Both are met: Y at 200, X with 620 tokens left at 820.
}

TEST(FlowPrefill, AStepDoesNotGrowBeyondTheFirstDeadlineInIt) {
  const auto cost = MsPerToken();
  FlowPrefillPolicy policy({});
  Scene scene = Ut84(cost.get(), 350);
  // 120 ms for Y alone; with 230 tokens of X it would end at 350.
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 2:120"));
  scene.waiting[0].first_token_deadline = AtMs(351);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 1:230", "admit 2:120"));
}

TEST(FlowPrefill, LatePromptsWaitButNotForEver) {
  const auto cost = MsPerToken();
  FlowPrefillPolicy policy({.late_s = 1});
  Scene scene = Ut84(cost.get(), 100);
  scene.waiting[0].first_token_deadline = AtMs(110);  // takes 120: cannot be met, counts as 1,110
  policy.OnArrival(scene.waiting[0], AtMs(0));
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 1:100"));
  scene.running[0].first_token_deadline = AtMs(1200);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 2:100"));
}

TEST(FlowPrefill, ADeadlineAloneCountsBackFromTheEnd) {
  const auto cost = MsPerToken();
  FlowPrefillPolicy policy({.tpot_ms = 50});
  Scene scene = Ut84(cost.get(), 100);
  scene.waiting[0] = WaitingView(2, 120, {}, 20);
  scene.waiting[0].deadline = AtMs(1500);  // 20 tokens of 50 ms: 500 ms, before 900
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 2:100"));
  scene.waiting[0].deadline = AtMs(1950);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 1:100"));
  // 110 ms, too early for 120 tokens: late, although the deadline itself is far.
  scene.waiting[0].deadline = AtMs(1110);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 1:100"));
}

TEST(FlowPrefill, OrderChangesAtEventsOnly) {
  const auto cost = MsPerToken();
  FlowPrefillPolicy policy({});
  Scene scene = Ut84(cost.get(), 100);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 2:100"));
  // Time passes, and an admission is no event: 2 is late by now, but keeps its place.
  scene.now = AtMs(190);
  scene.waiting.clear();
  scene.running.push_back(PrefillingView(2, 120, 100));
  scene.running[1].first_token_deadline = AtMs(200);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 2:20", "run 1:80"));
  policy.OnArrival(WaitingView(3, 10), scene.now);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 1:100"));
}

// 2 starts and ends in one step; 3 waits and is late after it.
TEST(FlowPrefill, APromptThatEndsInItsFirstStepIsAnEvent) {
  const auto cost = MsPerToken();
  for (const bool decodes : {false, true}) {
    FlowPrefillPolicy policy({});
    Scene scene = Ut84(cost.get(), 100);
    scene.waiting = {WaitingView(2, 100), WaitingView(3, 120)};
    scene.waiting[0].first_token_deadline = AtMs(150);
    scene.waiting[1].first_token_deadline = AtMs(200);
    EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 2:100"));
    scene.now = AtMs(100);
    scene.waiting.erase(scene.waiting.begin());
    if (decodes) {
      scene.running.push_back(DecodingView(2, 100, 1, scene.now));
      EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 2:1", "run 1:99"));
    } else {
      EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 1:100")) << "it made one token";
    }
  }
}

// 4 is cancelled in the step that 2 is admitted to: as many prefills as before.
TEST(FlowPrefill, APrefillThatDisappearsIsAnEvent) {
  const auto cost = MsPerToken();
  for (const bool cancelled : {false, true}) {
    FlowPrefillPolicy policy({});
    Scene scene = Ut84(cost.get(), 100);
    scene.running.push_back(PrefillingView(4, 1000, 320));
    scene.running[1].first_token_deadline = AtMs(5000);
    scene.waiting = {WaitingView(2, 150), WaitingView(3, 120)};
    scene.waiting[0].first_token_deadline = AtMs(205);
    scene.waiting[1].first_token_deadline = AtMs(210);
    EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 2:100"));
    scene.now = AtMs(100);
    scene.waiting.erase(scene.waiting.begin());
    if (cancelled) scene.running.pop_back();
    scene.running.push_back(PrefillingView(2, 150, 100));
    scene.running.back().first_token_deadline = AtMs(205);
    if (cancelled) {
      EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 2:50", "run 1:50")) << "3 is late";
    } else {
      EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 2:50", "admit 3:50"));
    }
  }
}

// UT-8.1: bandwidths 20, 5 and 50 tokens per second, goodputs 100, 100 and 120, two rows.
TEST(Jit, Ut81GroupsByGoodputPerBandwidth) {
  JitGroup group;
  std::vector<double> prios = {100. / 20, 100. / 5, 120. / 50};
  const std::vector<JitCandidate> candidates = {{prios[0], 40}, {prios[1], 60}, {prios[2], 50}};
  const double least = JitFloor(absl::MakeSpan(prios), 2);
  EXPECT_EQ(least, 5);
  EXPECT_THAT(group.Pick(candidates, 0.95 * least, 2), ElementsAre(0, 1));
}

TEST(Jit, TheGroupIsOfSimilarPrompts) {
  JitGroup group;
  const std::vector<JitCandidate> candidates = {{5, 10}, {5, 900}, {6, 20}, {5, 1000}, {1, 15}, {6, 30}};
  EXPECT_THAT(group.Pick(candidates, 4.75, 2), ElementsAre(2, 5)) << "20 and 30 tokens, 12 in all";
  EXPECT_THAT(group.Pick(candidates, 4.75, 9), ElementsAre(0, 2, 5, 1, 3));
  EXPECT_THAT(group.Pick({}, 0, 3), ElementsAre());
}

// The same three with deadlines of their own: 80, 100 and 100 tokens left after 4, 20 and 2 seconds.
TEST(Jit, Ut81RanksRequestsByTheirDeadlines) {
  JitPolicy policy({.quantile = 1});
  Scene scene;
  scene.now = AtMs(10000);
  scene.totals = {.steps = 100, .time = Duration::Milliseconds(1000), .prefill_tokens = 0};
  BatchDecision decision;
  policy.Plan(scene.view(), scene.now, &decision);  // learns v = 10 ms
  for (const auto& [output, prompt, due_s, bandwidth, prio] :
       {std::tuple{80, 20, 14, 0.2, 500.0}, {100, 0, 30, 0.05, 2000.0}, {100, 20, 12, 0.5, 240.0}}) {
    SequenceView view = WaitingView(1, prompt, AtMs(9000), output);
    view.deadline = AtMs(due_s * 1000);
    const JitPolicy::Rank rank = policy.RankOf(scene.view(), view, scene.now);
    EXPECT_NEAR(rank.bandwidth, bandwidth, 1e-9);
    EXPECT_NEAR(rank.prio, prio, 1e-6);
  }
}

// Time to first token 2 s, time per token 100 ms; 1 ms per prompt token, 10 ms per step.
Scene JitScene(const StepCostModel* cost) {
  Scene scene;
  scene.cost = cost;
  scene.now = AtMs(1000);
  scene.totals = {.steps = 100, .time = Duration::Milliseconds(1000), .prefill_tokens = 0};
  return scene;
}

TEST(Jit, InfeasibleOnesAreBestEffortUntilTheyWaitedTooLong) {
  const auto cost = MsPerToken();
  JitPolicy policy({.patience_s = 30});
  Scene scene = JitScene(cost.get());
  scene.limits.max_step_tokens = 100;
  scene.waiting = {WaitingView(1, 2000, AtMs(0)), WaitingView(2, 500, AtMs(500))};
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 2:100")) << "1 would be done 1 s late";
  scene.now = AtMs(30500);
  scene.waiting = {WaitingView(1, 2000, AtMs(0)), WaitingView(2, 500, AtMs(30400))};
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("admit 1:100"));
}

TEST(Jit, ANewcomerTakesThePlaceOfWhoGainsLess) {
  const auto cost = MsPerToken();
  JitPolicy policy({.quantile = 1}), meek({.quantile = 1, .preempt = false});
  Scene scene = JitScene(cost.get());
  // Running: 2 with a pace it cannot keep, 1 with time in hand. No block is free.
  scene.running = {DecodingView(1, 90, 5, AtMs(990)), DecodingView(2, 90, 5, AtMs(100))};
  scene.waiting = {WaitingView(3, 90, AtMs(990))};
  scene.blocks_free = 1;
  scene.blocks_total = 100;
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("preempt 2", "run 1:1"));
  EXPECT_THAT(Decide(&meek, scene), ElementsAre("run 1:1", "run 2:1"));
  // Six blocks have come back; with the watermark the newcomer needs seven.
  Scene next = scene;
  next.now = AtMs(1010);
  next.blocks_free = 7;
  next.running = {DecodingView(1, 90, 6, AtMs(1010))};
  next.waiting.push_back(DecodingView(2, 90, 5, AtMs(100)));
  next.waiting.back().num_computed = next.waiting.back().num_blocks = 0;
  EXPECT_THAT(Decide(&policy, next), ElementsAre("run 1:1", "admit 3:90"));
}

// Patience is about waiting: who has run for long is a victim like any other, who had waited for long is not,
// and who gave way waits from then on.
TEST(Jit, PatienceIsAboutWaitingNotAge) {
  const auto cost = MsPerToken();
  JitPolicy policy({.quantile = 1, .patience_s = 30});
  Scene scene = JitScene(cost.get());
  scene.now = AtMs(60000);
  scene.running = {DecodingView(1, 90, 5, AtMs(59990)), DecodingView(2, 90, 5, AtMs(59000))};
  scene.waiting = {WaitingView(3, 90, AtMs(59990))};
  scene.blocks_free = 1;
  scene.blocks_total = 100;
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("preempt 2", "run 1:1"));
  Scene next = scene;
  next.blocks_free = 7;
  next.running.pop_back();
  next.waiting = {DecodingView(2, 90, 5, AtMs(59000)), WaitingView(3, 90, AtMs(59990))};
  next.waiting[0].num_computed = next.waiting[0].num_blocks = 0;
  next.waiting[0].num_preemptions = 1;
  EXPECT_THAT(Decide(&policy, next), ElementsAre("run 1:1", "admit 3:90")) << "2 waits since a second";
  next.waiting[0].last_token = AtMs(30000);
  EXPECT_THAT(Decide(&policy, next), ElementsAre("run 1:1", "admit 2:95")) << "since half a minute";

  scene.running[1].num_preemptions = 1;
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("preempt 1", "run 2:1")) << "2 came back after a long time";
  scene.running[1].num_preemptions = 0;
  scene.running[1].first_scheduled = AtMs(30000);
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("preempt 1", "run 2:1")) << "2 had waited for long";
}

// Whoever gives way computes everything again: not for a newcomer that would still not fit.
TEST(Jit, NobodyGivesWayForWhoWouldNotFit) {
  const auto cost = MsPerToken();
  JitPolicy policy({.quantile = 1});
  Scene scene = JitScene(cost.get());
  scene.running = {DecodingView(1, 90, 5, AtMs(990)), DecodingView(2, 90, 5, AtMs(100))};
  scene.waiting = {WaitingView(3, 90, AtMs(990))};
  scene.blocks_total = 100;
  scene.blocks_free = 0;
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 1:1", "run 2:1")) << "the watermark is not there";
  scene.blocks_free = 1;
  scene.running[0] = DecodingView(1, 91, 5, AtMs(990));
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 1:1", "run 2:1"))
      << "1 takes a block in the next step";
  scene.blocks_free = 2;
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("preempt 2", "run 1:1"));
  scene.waiting[0].num_tokens = scene.waiting[0].num_prompt = 106;
  scene.waiting[0].shared_blocks = 1;  // with 2 alone, for all that is known
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("run 1:1", "run 2:1"));
  scene.running[1].shared_blocks = 1;
  scene.blocks_free = 3;
  EXPECT_THAT(Decide(&policy, scene), ElementsAre("preempt 2", "run 1:1"));
}

}  // namespace
}  // namespace orrery
