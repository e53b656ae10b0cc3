// Steps passed because they are known leave a worker as the same steps planned and done would: two workers
// see the same events, one of them passes what it can.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/base/text.h"
#include "scheduler/cost/step_cost.h"
#include "scheduler/worker_factory.h"

namespace orrery {
namespace {

WorkerSpec Spec(const std::string& scheduler, int32_t blocks) {
  WorkerSpec spec;
  spec.scheduler = scheduler;
  spec.options.num_blocks = blocks;
  spec.options.block_tokens = 4;
  spec.options.max_num_seqs = 6;
  spec.options.max_step_tokens = 24;
  spec.options.max_context = 4 * blocks;
  return spec;
}

Submit Unread(uint64_t id, int32_t prompt, int32_t output) {
  Submit submit;
  submit.key.request = RequestId{id};
  submit.num_prompt = prompt;
  submit.stop.max_tokens = output;
  return submit;
}

void DoStep(WorkerCore* core, Time start, Time end) {
  const StepPlan& plan = core->Plan(start);
  if (plan.empty()) return;
  StepResult result;
  result.step = plan.step;
  result.start = start;
  result.end = end;
  for (const Slice& slice : plan.slices) {
    if (!slice.sample) continue;
    SampledToken& sampled = result.sampled.emplace_back();
    sampled.sequence = slice.sequence;
    sampled.token = 1;
  }
  std::vector<TokenEvent> events;
  ASSERT_TRUE(core->OnStepDone(result, end, &events).ok());
}

// By request: its sequence and how many tokens it makes.
using Bounds = std::map<RequestId, std::pair<SequenceId, int32_t>>;

void EndThoseAtTheirBound(WorkerCore* core, const Bounds& bounds, Time now) {
  WorkerState state;
  core->State(now, &state);
  std::vector<SampledToken> ended;
  for (const RunningSample& sample : state.running) {
    const auto& [sequence, bound] = bounds.at(sample.key.request);
    if (sample.generated < bound) continue;
    SampledToken& last = ended.emplace_back();
    last.sequence = sequence;
    last.token = 1;
  }
  std::vector<TokenEvent> events;
  if (!ended.empty()) core->EndAfterKnownStep(ended, &events);
  ASSERT_EQ(events.size(), ended.size());
}

// One step of both, of which the second leaves out those apart: in all it says the same. `meanwhile` happens
// while the step is in flight. Returns how many stood apart.
int32_t DoStepBeside(WorkerCore* planned, WorkerCore* passing, const Bounds& bounds, Time start, Time end,
                     const std::function<void()>& meanwhile) {
  const StepPlan& whole = planned->Plan(start);
  WorkerCore::Beside beside;
  const StepPlan& rest = passing->PlanBeside(start, &beside);
  const StepShape shape = ShapeOf(whole);
  StepShape sum = ShapeOf(rest);
  sum.decodes += beside.decodes;
  sum.decode_context += beside.decode_context;
  EXPECT_EQ(sum.decodes, shape.decodes);
  EXPECT_EQ(sum.decode_context, shape.decode_context);
  EXPECT_EQ(sum.prefill_tokens, shape.prefill_tokens);
  EXPECT_EQ(rest.slices.size() + static_cast<size_t>(beside.decodes), whole.slices.size());
  EXPECT_EQ(whole.released_slots, rest.released_slots);
  if (whole.empty()) return 0;
  if (!whole.slices.empty()) {
    EXPECT_EQ(planned->last_decision().value, passing->last_decision().value);
    EXPECT_EQ(planned->last_decision().bound, passing->last_decision().bound);
    EXPECT_EQ(planned->last_decision().work, passing->last_decision().work);
  }
  meanwhile();  // it may list everybody in `rest`
  StepResult all, some;
  all.step = some.step = whole.step;
  all.start = some.start = start;
  all.end = some.end = end;
  std::map<SequenceId, int32_t> output_of;
  for (const auto& [request, facts] : bounds) output_of[facts.first] = facts.second;
  const size_t apart = whole.slices.size() - rest.slices.size();
  for (size_t i = 0; i < whole.slices.size(); ++i) {
    const Slice& slice = whole.slices[i];
    if (!slice.sample) continue;
    SampledToken sampled;
    sampled.sequence = slice.sequence;
    sampled.token = 1;
    all.sampled.push_back(sampled);
    const bool ends = slice.output_index + 1 == output_of.at(slice.sequence);
    if (i >= apart || ends) some.sampled.push_back(sampled);
  }
  std::vector<TokenEvent> events, less;
  EXPECT_TRUE(planned->OnStepDone(all, end, &events).ok());
  EXPECT_TRUE(passing->OnStepDone(some, end, &less).ok());
  std::erase_if(events, [](const TokenEvent& event) { return event.finish == FinishReason::kNone; });
  std::erase_if(less, [](const TokenEvent& event) { return event.finish == FinishReason::kNone; });
  EXPECT_EQ(events.size(), less.size());
  for (size_t i = 0; i < std::min(events.size(), less.size()); ++i) EXPECT_EQ(events[i].key, less[i].key);
  return beside.decodes;
}

std::string Shown(WorkerCore* core, Time now) {
  WorkerState state;
  core->State(now, &state);
  const WorkerCounters& c = core->counters();
  std::string text = Cat(Value(state.step), " ", state.kv_tokens, " ", state.blocks_free, " ",
                         state.free_slots, " ", state.num_waiting, " ", state.waiting_prompt_tokens, " ",
                         state.step_time.ns, " ", state.step_shape.decodes, " ",
                         state.step_shape.decode_context, " ", state.step_shape.prefill_tokens, " ", c.steps,
                         " ", c.generated_tokens, " ", c.computed_tokens, " ", c.preemptions);
  for (const RunningSample& sample : state.running) {
    text += Cat(" | ", Value(sample.key.request), " ", sample.kv_tokens, " ", sample.generated, " ",
                sample.prefill_left);
  }
  return text;
}

TEST(KnownSteps, LeaveTheWorkerAsPlannedStepsDo) {
  int passed = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    RandomStream random(seed);
    const WorkerSpec spec = Spec("fcfs", 16 + static_cast<int32_t>(random.Below(60)));
    auto planned = *NewWorkerCore(spec), passing = *NewWorkerCore(spec);
    uint64_t next = 1, num_accepted = 0;
    Bounds bounds;
    Time now;
    for (int turn = 0; turn < 400; ++turn) {
      if (random.Below(12) == 0) {
        const auto prompt = 1 + static_cast<int32_t>(random.Below(30));
        const Submit submit = Unread(next++, prompt, 1 + static_cast<int32_t>(random.Below(30)));
        const bool accepted = planned->OnArrival(submit, now).ok();
        ASSERT_EQ(passing->OnArrival(submit, now).ok(), accepted);
        if (accepted) bounds[submit.key.request] = {SequenceId{++num_accepted}, submit.stop.max_tokens};
      }
      if (random.Below(40) == 0) {
        std::vector<TokenEvent> events;
        const RequestId one{1 + random.Below(next)};
        planned->OnCancelRequest(one, now, &events);
        passing->OnCancelRequest(one, now, &events);
      }
      const Time end = now + Duration::Microseconds(100 + static_cast<int64_t>(random.Below(50)));
      DoStep(planned.get(), now, end);
      DecisionRecord why;
      int32_t known = passing->KnownSteps(&why);
      if (known > 0) {
        ASSERT_EQ(why.work, planned->last_decision().work);
        ASSERT_EQ(why.value, planned->last_decision().value);
        ASSERT_EQ(why.bound, planned->last_decision().bound);
        passing->PassKnownStep(now, end);
        ++passed;
        for (now = end; --known > 0 && random.Below(30) > 0; ++passed) {  // some more, unasked
          const Time then = now + Duration::Microseconds(100);
          DoStep(planned.get(), now, then);
          passing->PassKnownStep(now, then);
          now = then;
        }
        if (known == 0) EndThoseAtTheirBound(passing.get(), bounds, now);
      } else {
        DoStep(passing.get(), now, end);
        now = end;
      }
      ASSERT_EQ(Shown(planned.get(), now), Shown(passing.get(), now)) << "seed " << seed << " turn " << turn;
      ASSERT_TRUE(passing->CheckInvariants().ok()) << passing->CheckInvariants();
    }
  }
  EXPECT_GT(passed, 5000);
}

// Arrivals all the time, now and then a cancel, some of them while a step is in flight; looked at only at the
// end of a history, since looking lists everybody again.
TEST(KnownSteps, DecodesApartLeaveTheWorkerAsListedOnesDo) {
  int64_t apart = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    RandomStream random(seed);
    WorkerSpec spec = Spec("fcfs", 20 + static_cast<int32_t>(random.Below(80)));
    spec.options.block_tables = false;
    auto planned = *NewWorkerCore(spec), passing = *NewWorkerCore(spec);
    uint64_t next = 1, num_accepted = 0;
    Bounds bounds;
    Time now;
    const auto arrive = [&] {
      if (random.Below(4) > 0) return;
      const auto prompt = 1 + static_cast<int32_t>(random.Below(30));
      const Submit submit = Unread(next++, prompt, 1 + static_cast<int32_t>(random.Below(30)));
      const bool accepted = planned->OnArrival(submit, now).ok();
      ASSERT_EQ(passing->OnArrival(submit, now).ok(), accepted);
      if (accepted) bounds[submit.key.request] = {SequenceId{++num_accepted}, submit.stop.max_tokens};
    };
    const auto meanwhile = [&] {
      arrive();
      if (random.Below(60) > 0) return;
      std::vector<TokenEvent> events;
      const RequestId one{1 + random.Below(next)};
      planned->OnCancelRequest(one, now, &events);
      passing->OnCancelRequest(one, now, &events);
    };
    for (int turn = 0; turn < 60 + static_cast<int>(random.Below(100)); ++turn) {
      arrive();
      const Time end = now + Duration::Microseconds(100);
      passing->Apart();
      apart += DoStepBeside(planned.get(), passing.get(), bounds, now, end, meanwhile);
      ASSERT_FALSE(HasFailure()) << "seed " << seed << " turn " << turn;
      now = end;
    }
    ASSERT_EQ(Shown(planned.get(), now), Shown(passing.get(), now)) << "seed " << seed;
    ASSERT_TRUE(passing->CheckInvariants().ok()) << passing->CheckInvariants();
  }
  EXPECT_GT(apart, 20'000);
}

TEST(KnownSteps, AreNotKnownWhereSomethingElseDecides) {
  DecisionRecord why;
  const Time start, end{1000};
  // A policy without a promise; a sequence whose ids are published; an arrival.
  auto silent = *NewWorkerCore(Spec("mc-sf", 64));
  auto core = *NewWorkerCore(Spec("fcfs", 64));
  for (WorkerCore* one : {silent.get(), core.get()}) {
    ASSERT_TRUE(one->OnArrival(Unread(1, 3, 20), start).ok());
    EXPECT_EQ(one->KnownSteps(&why), 0);
    DoStep(one, start, end);
  }
  EXPECT_EQ(silent->KnownSteps(&why), 0);
  EXPECT_EQ(core->KnownSteps(&why), 19);  // one is made, and the last one ends it
  Submit shared = Unread(2, 3, 20);
  shared.tokens = std::make_shared<const std::vector<TokenId>>(3, 7);
  ASSERT_TRUE(core->OnArrival(shared, end).ok());
  EXPECT_EQ(core->KnownSteps(&why), 0);
  DoStep(core.get(), end, Time{2000});
  EXPECT_EQ(core->KnownSteps(&why), 0);
}

}  // namespace
}  // namespace orrery
