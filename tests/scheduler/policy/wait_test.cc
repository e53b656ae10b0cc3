#include "scheduler/policy/wait.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "scheduler/policy/nested_wait.h"
#include "scheduler/policy/wait_limits.h"
#include "scheduler/predict/length_predictor.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// UT-2a of the design.
TEST(WaitLimits, FluidEquilibrium) {
  const std::vector<LengthClass> classes = {{50, 156, 10}, {100, 171, 5}};
  const auto point = FluidEquilibrium(classes, 0.01, 1e-7);
  ASSERT_TRUE(point.ok());
  EXPECT_NEAR(point->step_s, 0.010373971, 5e-10);
  EXPECT_NEAR(point->per_stage[0], 0.103740, 5e-7);
  EXPECT_NEAR(point->per_stage[1], 0.051870, 5e-7);
  EXPECT_NEAR(point->tokens, 3739.71, 0.005);
  const FluidPoint ones = AtThresholds(classes, {1, 1}, 0.01, 1e-7);
  EXPECT_NEAR(ones.tokens, 52002, 1e-9);
  EXPECT_NEAR(ones.step_s, 0.0152002, 1e-12);
  for (size_t j = 0; j < classes.size(); ++j) EXPECT_LT(classes[j].rate * ones.step_s, 1);
}

TEST(WaitLimits, TooMuchLoadHasNoEquilibrium) {
  EXPECT_EQ(FluidEquilibrium(std::vector<LengthClass>{{50, 156, 1000}}, 0.01, 1e-7).status().code(),
            absl::StatusCode::kResourceExhausted);
}

// UT-2b.
TEST(WaitLimits, Bookings) {
  const std::vector<LengthClass> classes = {{0, 10, 20}, {0, 20, 10}};
  std::vector<Booking> limits;
  BookingLimits(classes, 400, &limits);
  EXPECT_NEAR(limits[0].share, 204.65, 0.005);
  EXPECT_NEAR(limits[1].share, 195.35, 0.005);
  const auto per_stage = [&](double total) {
    BookingLimits(classes, total, &limits);
    return std::vector<int32_t>{limits[0].per_stage, limits[1].per_stage};
  };
  EXPECT_THAT(per_stage(400), ElementsAre(18, 9));
  EXPECT_THAT(per_stage(1000), ElementsAre(46, 23));
  EXPECT_THAT(per_stage(43), ElementsAre(2, 1));
}

// UT-2c.
TEST(WaitLimits, NestedSegments) {
  std::vector<Segment> segments;
  NestedSegments(std::vector<LengthClass>{{0, 10, 20}, {0, 20, 10}}, 400, &segments);
  ASSERT_EQ(segments.size(), 2u);
  EXPECT_EQ(segments[0].begin, 0);
  EXPECT_EQ(segments[0].end, 10);
  EXPECT_NEAR(segments[0].total, 300, 1e-9);
  EXPECT_EQ(segments[0].per_stage, 30);
  EXPECT_EQ(segments[1].begin, 10);
  EXPECT_EQ(segments[1].end, 20);
  EXPECT_NEAR(segments[1].total, 100, 1e-9);
  EXPECT_EQ(segments[1].per_stage, 10);
  NestedSegments(std::vector<LengthClass>{{0, 2, 3}, {0, 5, 1}}, 22, &segments);
  EXPECT_NEAR(segments[0].total, 16, 1e-9);
  EXPECT_EQ(segments[0].per_stage, 8);
  EXPECT_NEAR(segments[1].total, 6, 1e-9);
  EXPECT_EQ(segments[1].per_stage, 2);
}

constexpr int32_t kBlock = 16;

Time Ms(int64_t ms) { return Time{} + Duration::Milliseconds(ms); }

SequenceView Waits(uint64_t id, int32_t max_new, Time arrival) {
  SequenceView view;
  view.id = SequenceId{id};
  view.arrival = arrival;
  view.num_prompt = view.num_tokens = 10;
  view.max_new_tokens = max_new;
  return view;
}

SequenceView Decodes(uint64_t id, int32_t max_new, int32_t generated, Time last_token) {
  SequenceView view = Waits(id, max_new, Time{});
  view.first_scheduled = Time{};
  view.last_token = last_token;
  view.num_generated = generated;
  view.num_tokens = 10 + generated;
  view.num_computed = view.num_tokens - 1;
  view.num_blocks = BlocksFor(view.num_computed, kBlock);
  return view;
}

struct Answer {
  std::vector<std::string> words;
  Time wake;
};

Answer Decide(BatchPolicy* policy, const std::vector<SequenceView>& running,
              const std::vector<SequenceView>& waiting, Time now, int32_t blocks_free = 1000,
              const LengthPredictor* predictor = nullptr) {
  WorkerView view;
  view.running = running;
  view.waiting = waiting;
  view.blocks_free = blocks_free;
  view.predictor = predictor;
  view.blocks_total = 1000;
  view.free_slots = 64;
  view.limits = {.max_step_tokens = 1000, .max_num_seqs = 64, .block_tokens = kBlock};
  BatchDecision decision;
  policy->Plan(view, now, &decision);
  Answer answer{{}, decision.wake};
  for (const SequenceId id : decision.preempt) answer.words.push_back("preempt " + std::to_string(Value(id)));
  for (const Grant& grant : decision.run)
    answer.words.push_back("run " + std::to_string(Value(grant.sequence)));
  for (const Grant& grant : decision.admit) {
    answer.words.push_back("admit " + std::to_string(Value(grant.sequence)));
  }
  return answer;
}

TEST(Wait, WaitsForCompanyThenTakesAWholeBatch) {
  // One class, outputs of about 6 tokens (an octave from 4 to 7): 21 bookings are 3 per stage.
  WaitPolicy policy({.total = 21, .timeout_ms = 100});
  Answer answer = Decide(&policy, {}, {Waits(1, 5, Ms(0)), Waits(2, 5, Ms(1))}, Ms(1));
  EXPECT_THAT(answer.words, IsEmpty());
  EXPECT_EQ(answer.wake, Ms(100)) << "the first one's patience";
  answer = Decide(&policy, {},
                  {Waits(1, 5, Ms(0)), Waits(2, 5, Ms(1)), Waits(3, 5, Ms(2)), Waits(4, 5, Ms(2))}, Ms(2));
  EXPECT_THAT(answer.words, ElementsAre("admit 1", "admit 2", "admit 3"));
}

TEST(Wait, ResidentsPauseUntilOthersArriveOrPatienceEnds) {
  WaitPolicy policy({.total = 21, .timeout_ms = 100});
  const std::vector<SequenceView> running = {Decodes(1, 5, 2, Ms(50)), Decodes(2, 5, 2, Ms(50))};
  Answer answer = Decide(&policy, running, {Waits(3, 5, Ms(55))}, Ms(60));
  EXPECT_THAT(answer.words, IsEmpty());
  EXPECT_EQ(answer.wake, Ms(150));
  answer = Decide(&policy, running, {Waits(3, 5, Ms(55))}, Ms(150));
  EXPECT_THAT(answer.words, ElementsAre("run 1", "run 2", "admit 3"));
}

TEST(Wait, EveryClassHasItsOwnThreshold) {
  WaitPolicy policy({.total = 40, .timeout_ms = 100});
  std::vector<SequenceView> waiting;
  for (uint64_t id = 1; id <= 5; ++id) waiting.push_back(Waits(id, id == 3 ? 500 : 5, Ms(0)));
  // Almost all bookings go to the long one, which has 385 stages to pass: one per stage for both classes.
  EXPECT_THAT(Decide(&policy, {}, waiting, Ms(1)).words, ElementsAre("admit 1", "admit 3"));
}

// A predictor that changes its mind must not move those who are here to another class.
class DriftingPredictor final : public LengthPredictor {
 public:
  int32_t output = 5;
  int32_t Quantile(const SequenceView&, double) const override { return output; }
  void OnFinished(const SequenceView&) override {}
};

TEST(Wait, ASequenceStaysInTheClassOfItsArrival) {
  WaitPolicy policy({.total = 21, .timeout_ms = 100});
  DriftingPredictor predictor;
  const std::vector<SequenceView> first = {Waits(1, 900, Ms(0)), Waits(2, 900, Ms(0)), Waits(3, 900, Ms(0))};
  EXPECT_THAT(Decide(&policy, {}, first, Ms(1), 1000, &predictor).words,
              ElementsAre("admit 1", "admit 2", "admit 3"));
  predictor.output = 9;
  const std::vector<SequenceView> running = {Decodes(1, 900, 1, Ms(5)), Decodes(2, 900, 1, Ms(5)),
                                             Decodes(3, 900, 1, Ms(5))};
  // Three more of their class would move them; these are of another, whose first one goes alone.
  EXPECT_THAT(Decide(&policy, running, {Waits(4, 900, Ms(6))}, Ms(6), 1000, &predictor).words,
              ElementsAre("admit 4"));
}

TEST(Wait, PausedOnesGiveWayFirst) {
  WaitPolicy policy({.total = 21, .timeout_ms = 100});
  Decide(&policy, {}, {Waits(1, 100, Ms(0)), Waits(2, 10, Ms(0))}, Ms(0));
  // 16 tokens in memory each: everybody who goes on needs a block, and none is free.
  std::vector<SequenceView> running = {Decodes(1, 100, 7, Ms(50)), Decodes(2, 10, 7, Ms(0))};
  EXPECT_THAT(Decide(&policy, running, {}, Ms(110), 0).words, ElementsAre("preempt 1", "run 2"));
}

TEST(NestedWait, ServesInArrivalOrderUntilItKnows) {
  NestedWaitPolicy policy({.total = 22, .segments = 2, .min_history = 4, .timeout_ms = 100});
  EXPECT_THAT(Decide(&policy, {Decodes(1, 50, 3, Ms(0))}, {Waits(2, 50, Ms(0))}, Ms(1)).words,
              ElementsAre("run 1", "admit 2"));
}

// UT-2c's second mix, as learnt: three outputs of 2 and one of 5; 22 bookings.
TEST(NestedWait, SegmentsAdvanceInOrder) {
  NestedWaitPolicy policy({.total = 22, .segments = 4, .min_history = 4, .timeout_ms = 100});
  for (const int32_t output : {2, 2, 5, 2}) policy.OnFinished(Decodes(99, 50, output, Ms(0)), Ms(0));
  std::vector<SequenceView> queue;
  for (uint64_t id = 10; id < 17; ++id) queue.push_back(Waits(id, 50, Ms(90)));
  // Seven at the first entrance, which asks for eight: nothing moves, not even the two inside.
  const std::vector<SequenceView> running = {Decodes(1, 50, 1, Ms(95)), Decodes(2, 50, 3, Ms(95))};
  Answer answer = Decide(&policy, running, queue, Ms(96));
  EXPECT_THAT(answer.words, IsEmpty());
  EXPECT_EQ(answer.wake, Ms(190));
  // With eight the first segment goes; the second has nobody at its entrance, where it asks for two.
  queue.push_back(Waits(17, 50, Ms(96)));
  answer = Decide(&policy, running, queue, Ms(96));
  ASSERT_EQ(answer.words.size(), 9u);
  EXPECT_EQ(answer.words[0], "run 1");
  EXPECT_EQ(answer.words[8], "admit 17");
  // Two who survived the first segment open the second.
  answer = Decide(&policy,
                  {Decodes(1, 50, 1, Ms(95)), Decodes(2, 50, 3, Ms(95)), Decodes(3, 50, 2, Ms(95)),
                   Decodes(4, 50, 2, Ms(95))},
                  queue, Ms(96));
  ASSERT_EQ(answer.words.size(), 12u);
  EXPECT_THAT(std::vector<std::string>(answer.words.begin(), answer.words.begin() + 4),
              ElementsAre("run 1", "run 2", "run 3", "run 4"));
  // And whoever ran out of patience goes in any case.
  answer = Decide(&policy, {Decodes(1, 50, 1, Ms(0)), Decodes(2, 50, 3, Ms(95))}, {}, Ms(100));
  EXPECT_THAT(answer.words, ElementsAre("run 1"));
}

}  // namespace
}  // namespace orrery
