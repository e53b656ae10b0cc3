#include "scheduler/policy/fcfs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/policy/registry.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int32_t kBlock = 4;

SequenceView Decoding(uint64_t id, int32_t context, int32_t shared_blocks = 0) {
  SequenceView view;
  view.id = SequenceId{id};
  view.first_scheduled = Time{};
  view.num_prompt = context - 1;
  view.num_generated = 1;
  view.num_tokens = context;
  view.num_computed = context - 1;
  view.max_new_tokens = 100;
  view.num_blocks = BlocksFor(view.num_computed, kBlock);
  view.shared_blocks = shared_blocks;
  return view;
}

SequenceView Prefilling(uint64_t id, int32_t prompt, int32_t computed) {
  SequenceView view;
  view.id = SequenceId{id};
  view.first_scheduled = Time{};
  view.num_prompt = view.num_tokens = prompt;
  view.num_computed = computed;
  view.max_new_tokens = 100;
  view.num_blocks = BlocksFor(computed, kBlock);
  return view;
}

SequenceView Waits(uint64_t id, int32_t prompt, int32_t cached = 0, int32_t held = 0) {
  SequenceView view;
  view.id = SequenceId{id};
  view.num_prompt = view.num_tokens = prompt;
  view.cached_tokens = cached;
  view.shared_blocks = held;
  view.max_new_tokens = 100;
  return view;
}

// The decision in words: "run 1:1", "admit 3:10", "preempt 2".
struct Case {
  std::vector<SequenceView> running{}, waiting{};
  int32_t free_blocks = 100, budget = 16, max_seqs = 8, free_slots = 8, total_blocks = 100;
  FcfsOptions options = {.token_budget = 0, .watermark = 0};
};

std::vector<std::string> Decide(const Case& c) {
  FcfsPolicy policy(c.options);
  WorkerView view;
  view.running = c.running;
  view.waiting = c.waiting;
  view.blocks_free = c.free_blocks;
  view.blocks_total = c.total_blocks;
  view.free_slots = c.free_slots;
  view.limits = {.max_step_tokens = c.budget, .max_num_seqs = c.max_seqs, .block_tokens = kBlock};
  BatchDecision decision;
  policy.Plan(view, Time{}, &decision);
  std::vector<std::string> words;
  for (const SequenceId id : decision.preempt) words.push_back("preempt " + std::to_string(Value(id)));
  for (const Grant& grant : decision.run) {
    words.push_back("run " + std::to_string(Value(grant.sequence)) + ":" + std::to_string(grant.count));
  }
  for (const Grant& grant : decision.admit) {
    words.push_back("admit " + std::to_string(Value(grant.sequence)) + ":" + std::to_string(grant.count));
  }
  return words;
}

TEST(Fcfs, DecodesComeFirstThenOldPrefillsThenNewOnes) {
  EXPECT_THAT(Decide({.running = {Prefilling(1, 20, 10), Decoding(2, 8)}, .waiting = {Waits(3, 30)}}),
              ElementsAre("run 2:1", "run 1:10", "admit 3:5"));
}

TEST(Fcfs, BudgetCutsPrefillsNotDecodes) {
  EXPECT_THAT(Decide({.running = {Decoding(1, 8), Decoding(2, 8), Decoding(3, 8), Prefilling(4, 20, 4)},
                      .options = {.token_budget = 2, .watermark = 0}}),
              ElementsAre("run 1:1", "run 2:1", "run 3:1"));
  EXPECT_THAT(Decide({.running = {Decoding(1, 8), Decoding(2, 8), Decoding(3, 8)}, .budget = 2}),
              ElementsAre("run 1:1", "run 2:1"))
      << "but the engine's own limit holds";
}

TEST(Fcfs, PreemptsNewestWhenADecodeNeedsABlock) {
  EXPECT_THAT(Decide({.running = {Decoding(1, 9), Decoding(2, 9)}, .free_blocks = 0}),
              ElementsAre("preempt 2", "run 1:1"));
  EXPECT_THAT(Decide({.running = {Decoding(2, 9), Decoding(1, 9)}, .free_blocks = 0}),
              ElementsAre("preempt 2", "run 1:1"))
      << "newest by arrival, not by admission";
}

TEST(Fcfs, TheNewestItselfGivesWay) {
  EXPECT_THAT(Decide({.running = {Decoding(1, 8), Decoding(2, 9)}, .free_blocks = 0}),
              ElementsAre("preempt 2", "run 1:1"));
}

TEST(Fcfs, SharedBlocksDoNotComeBack) {
  EXPECT_THAT(Decide({.running = {Decoding(1, 9), Decoding(2, 9), Decoding(3, 9, 2)}, .free_blocks = 0}),
              ElementsAre("preempt 3", "preempt 2", "run 1:1"))
      << "both blocks of 3 are shared: preempting it frees nothing";
}

TEST(Fcfs, NobodyIsAdmittedOverAPreemptedOne) {
  EXPECT_THAT(
      Decide({.running = {Decoding(1, 9), Decoding(2, 9)}, .waiting = {Waits(3, 1)}, .free_blocks = 0}),
      ElementsAre("preempt 2", "run 1:1"));
}

TEST(Fcfs, LaterPrefillsMakeRoomForEarlierOnes) {
  EXPECT_THAT(Decide({.running = {Prefilling(1, 20, 8), Prefilling(2, 20, 8)}, .free_blocks = 1}),
              ElementsAre("preempt 2", "run 1:12"));
  EXPECT_THAT(Decide({.running = {Prefilling(1, 20, 8), Decoding(2, 8)}, .free_blocks = 1}),
              ElementsAre("run 2:1", "run 1:4"))
      << "decodes do not: the chunk is cut to the blocks there are";
}

TEST(Fcfs, StopsAtTheFirstThatDoesNotFit) {
  EXPECT_THAT(Decide({.waiting = {Waits(1, 8), Waits(2, 40), Waits(3, 4)}, .free_blocks = 10}),
              ElementsAre("admit 1:8"));
}

TEST(Fcfs, WholePromptMustHaveBlocks) {
  EXPECT_THAT(
      Decide({.running = {Prefilling(1, 40, 8)}, .waiting = {Waits(2, 8)}, .free_blocks = 9, .budget = 20}),
      ElementsAre("run 1:20"))
      << "one block is left after what the running prefill still needs";
  EXPECT_THAT(
      Decide({.running = {Prefilling(1, 16, 8)}, .waiting = {Waits(2, 8)}, .free_blocks = 4, .budget = 20}),
      ElementsAre("run 1:8", "admit 2:8"));
}

TEST(Fcfs, WatermarkHoldsOnlyBesideOthers) {
  Case c = {.running = {Decoding(1, 6)}, .waiting = {Waits(2, 16)}, .free_blocks = 5, .total_blocks = 10};
  c.options.watermark = 0.2;
  EXPECT_THAT(Decide(c), ElementsAre("run 1:1"));
  c.free_blocks = 6;
  EXPECT_THAT(Decide(c), ElementsAre("run 1:1", "admit 2:15"));
  c = {.waiting = {Waits(2, 16)}, .free_blocks = 4, .total_blocks = 4};
  c.options.watermark = 0.2;
  EXPECT_THAT(Decide(c), ElementsAre("admit 2:16")) << "alone, anything that fits";
}

TEST(Fcfs, CachedPrefixCostsNoTokensAndHeldOnesNoBlocks) {
  EXPECT_THAT(Decide({.waiting = {Waits(1, 20, 16, 4)}, .free_blocks = 1}), ElementsAre("admit 1:4"));
  EXPECT_THAT(Decide({.waiting = {Waits(1, 20, 16, 0)}, .free_blocks = 4}), IsEmpty())
      << "cached but held by nobody: they count among the free ones";
}

TEST(Fcfs, SequencesAndSlotsAreLimits) {
  EXPECT_THAT(Decide({.running = {Decoding(1, 6)}, .waiting = {Waits(2, 2), Waits(3, 2)}, .max_seqs = 2}),
              ElementsAre("run 1:1", "admit 2:2"));
  SequenceView preempted = Waits(2, 2);
  preempted.first_scheduled = Time{};
  EXPECT_THAT(Decide({.waiting = {preempted, Waits(3, 2), Waits(4, 2)}, .free_slots = 1}),
              ElementsAre("admit 2:2", "admit 3:2"))
      << "who was preempted has kept its slot";
}

// UT-8.6 of the design: budget 8, two decodes, one prefill with three tokens left.
TEST(Fcfs, SarathiExample) {
  EXPECT_THAT(Decide({.running = {Decoding(1, 6), Decoding(2, 6), Prefilling(3, 9, 6)},
                      .waiting = {Waits(4, 10), Waits(5, 2)},
                      .budget = 8}),
              ElementsAre("run 1:1", "run 2:1", "run 3:3", "admit 4:3"));
}

TEST(Registry, ListsAndBuildsWhatItNames) {
  for (const PolicyInfo& info : SchedulerPolicies()) {
    const std::string name(info.name);
    if (info.kind == "batch") {
      EXPECT_TRUE(NewBatchPolicy(name).ok());
    } else if (info.kind == "eviction") {
      EXPECT_TRUE(NewEvictionPolicy(name).ok());
    } else {
      ASSERT_EQ(info.kind, "predictor");
      EXPECT_EQ(NewLengthPredictor(name).ok(), name != "oracle") << "whose truth only a simulation has";
    }
    for (const OptionInfo& option : info.options) {
      EXPECT_LE(option.low, option.default_value) << name << " " << option.name;
      EXPECT_GE(option.high, option.default_value) << name << " " << option.name;
      EXPECT_FALSE(option.help.empty());
    }
  }
}

TEST(Registry, SuggestsTheNearestName) {
  EXPECT_THAT(std::string(NewBatchPolicy("fcsf").status().message()), HasSubstr("did you mean 'fcfs'"));
  EXPECT_THAT(std::string(NewBatchPolicy("fcfs:watermarks=1").status().message()), HasSubstr("'watermark'"));
  EXPECT_THAT(std::string(NewBatchPolicy("fcfs:watermark=0.9").status().message()), HasSubstr("[0, 0.5]"));
  EXPECT_THAT(std::string(NewEvictionPolicy("lru:x=1").status().message()), HasSubstr("option of lru 'x'"));
  EXPECT_THAT(std::string(NewEvictionPolicy("lecc").status().message()), HasSubstr("did you mean 'lec'"));
  EXPECT_THAT(std::string(NewEvictionPolicy("lec:half-life=0").status().message()), HasSubstr("[1, 1e+06]"));
  EXPECT_FALSE(NewLengthPredictor("oracle").ok());
}

}  // namespace
}  // namespace orrery
