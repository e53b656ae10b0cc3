// RouterCore with requests whose prefill and decode are placed apart, event by event.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "router/router_core.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Prompts go to worker 0; decodes where the test says, else nowhere.
struct Told final : RoutePolicy {
  explicit Told(std::map<uint64_t, uint32_t>* decodes) : decodes(decodes) {}
  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time, Assignment* out) override {
    for (const Waiting& one : waiting) out->placements.push_back({one.request, WorkerId{0}, true});
    for (const Waiting& one : cluster.between) {
      const auto to = decodes->find(Value(one.request));
      if (to != decodes->end()) out->placements.push_back({one.request, WorkerId{to->second}});
    }
  }
  void OnPlanReady(const RoutePlan& plan) override { plans.push_back(Value(plan.id)); }
  std::map<uint64_t, uint32_t>* decodes;
  std::vector<uint64_t> plans;
};

class TwoStagesTest : public ::testing::Test {
 protected:
  TwoStagesTest() {
    for (const uint32_t id : {0, 1}) Up(id, 1);
  }
  void Up(uint32_t id, uint64_t incarnation) {
    core_.OnWorkerUp({.worker = WorkerId{id},
                      .incarnation = incarnation,
                      .kv_capacity_tokens = 1000,
                      .max_context = 1000,
                      .slots = 4},
                     now_, &out_);
  }
  void Arrive(uint64_t id, int32_t samples = 1, Time deadline = Time::Never()) {
    Submit submit;
    submit.key.request = RequestId{id};
    submit.tokens = std::make_shared<const std::vector<TokenId>>(std::vector<TokenId>{7, 8, 9});
    submit.num_prompt = 3;
    submit.stop.max_tokens = 10;
    submit.sampling.seed = 100;
    submit.deadline = deadline;
    ASSERT_TRUE(core_.OnArrival(submit, samples, now_, &out_).ok());
  }
  // A step of the worker that makes these tokens, and its snapshot.
  struct Made {
    SampleKey key;
    int32_t index;
    FinishReason finish = FinishReason::kNone;
  };
  int Step(uint32_t worker, std::vector<Made> tokens) {
    int fresh = 0;
    for (const Made& made : tokens) {
      TokenEvent event;
      event.key = made.key;
      event.index = made.index;
      event.token = made.finish == FinishReason::kCancelled ? -1 : 40 + made.index;
      event.finish = made.finish;
      fresh += core_.OnTokenEvent(WorkerId{worker}, event, now_, &out_);
    }
    WorkerState state;
    state.worker = WorkerId{worker};
    state.incarnation = 1;
    state.sequence_number = ++snapshots_;
    state.last_submission = 100;
    state.num_running = 1;
    core_.OnWorkerState(state, now_, &out_);
    return fresh;
  }
  static SampleKey Key(uint64_t request, uint32_t attempt = 0, uint32_t sample = 0) {
    return {RequestId{request}, sample, attempt};
  }
  const WorkerLoad& LoadOf(uint32_t worker) const { return core_.workers()[worker]; }

  std::map<uint64_t, uint32_t> decodes_;
  RouterCore core_{AdmissionLimits{}, std::make_unique<Told>(&decodes_),
                   ReplayLimits{.progress_timeout = Duration::Infinite()}};
  RouterOutput out_;
  uint64_t snapshots_ = 0;
  Time now_;
};

TEST_F(TwoStagesTest, GoesOnElsewhereWithItsTokensAndItsKv) {
  Arrive(1);
  EXPECT_EQ(LoadOf(0).num_prefills, 1);
  out_.Clear();
  decodes_[1] = 1;
  EXPECT_EQ(Step(0, {{Key(1), 0}}), 1);
  ASSERT_THAT(out_.leave, SizeIs(1));
  EXPECT_EQ(out_.leave[0].worker, WorkerId{0});
  EXPECT_EQ(out_.leave[0].sample, Key(1));
  ASSERT_THAT(out_.dispatch, SizeIs(1));
  EXPECT_EQ(out_.dispatch[0].worker, WorkerId{1});
  const Submit& submit = out_.dispatch[0].submit;
  EXPECT_EQ(submit.key, Key(1, 1));
  EXPECT_EQ(submit.num_emitted, 1);
  EXPECT_THAT(*submit.tokens, ElementsAre(7, 8, 9, 40));
  EXPECT_EQ(submit.sampling.seed, 100u);
  ASSERT_TRUE(submit.kv_source.has_value());
  EXPECT_EQ(submit.kv_source->worker, WorkerId{0});
  EXPECT_EQ(submit.kv_source->num_tokens, 3);
  EXPECT_EQ(LoadOf(0).num_bound + LoadOf(0).num_prefills, 0);
  EXPECT_EQ(LoadOf(1).num_bound, 1);
  // What the old worker still says is of no interest; the new one goes on where it ended.
  EXPECT_EQ(Step(0, {{Key(1), 1}, {Key(1), -1, FinishReason::kCancelled}}), 0);
  EXPECT_EQ(Step(1, {{Key(1, 1), 1}, {Key(1, 1), 2, FinishReason::kLength}}), 2);
  EXPECT_TRUE(core_.idle());
  EXPECT_EQ(LoadOf(1).num_bound, 0);
  EXPECT_EQ(core_.counters().handed_over, 1u);
  EXPECT_EQ(core_.counters().gap_events, 0u);
}

TEST_F(TwoStagesTest, StaysWithoutAWord) {
  Arrive(1);
  out_.Clear();
  decodes_[1] = 0;
  Step(0, {{Key(1), 0}});
  EXPECT_TRUE(out_.empty());
  EXPECT_EQ(LoadOf(0).num_prefills, 0);
  EXPECT_EQ(LoadOf(0).num_bound, 1);
  EXPECT_EQ(Step(0, {{Key(1), 1, FinishReason::kStop}}), 1);
  EXPECT_TRUE(core_.idle());
}

TEST_F(TwoStagesTest, OneTokenIsAllThereIs) {
  Arrive(1);
  out_.Clear();
  EXPECT_EQ(Step(0, {{Key(1), 0, FinishReason::kStop}}), 1);
  EXPECT_TRUE(core_.idle() && out_.empty());
  EXPECT_EQ(LoadOf(0).num_bound + LoadOf(0).num_prefills, 0);
}

TEST_F(TwoStagesTest, WaitsInOrderAndGoesOnEvenWhereItCameFrom) {
  Arrive(1);
  Arrive(2);
  out_.Clear();
  Step(0, {{Key(1), 0}, {Key(2), 0}});
  EXPECT_THAT(out_.leave, SizeIs(2));
  EXPECT_THAT(out_.dispatch, IsEmpty());
  EXPECT_TRUE(core_.Parked(RequestId{1}) && core_.Parked(RequestId{2}));
  EXPECT_EQ(core_.num_between(), 2);
  EXPECT_EQ(LoadOf(0).num_bound, 0);
  out_.Clear();
  decodes_[2] = 0;
  Step(1, {});
  EXPECT_THAT(out_.leave, IsEmpty());
  ASSERT_THAT(out_.dispatch, SizeIs(1));
  EXPECT_EQ(out_.dispatch[0].submit.key, Key(2, 1));
  EXPECT_EQ(out_.dispatch[0].worker, WorkerId{0});
  EXPECT_EQ(core_.num_between(), 1);
}

TEST_F(TwoStagesTest, CancelDeadlineAndLossEndWhoWaitsBetweenTwoWorkers) {
  Arrive(1);
  Arrive(2, 1, now_ + Duration::Seconds(5));
  Arrive(3);
  Step(0, {{Key(1), 0}, {Key(2), 0}, {Key(3), 0}});
  out_.Clear();
  core_.OnCancel(RequestId{1}, now_, &out_);
  ASSERT_THAT(out_.ended, SizeIs(1));
  EXPECT_EQ(out_.ended[0].finish, FinishReason::kCancelled);
  EXPECT_THAT(out_.cancel, IsEmpty());
  EXPECT_EQ(core_.NextWake(), now_ + Duration::Seconds(5));
  now_ = core_.NextWake();
  core_.OnTimer(now_, &out_);
  ASSERT_THAT(out_.ended, SizeIs(2));
  EXPECT_EQ(out_.ended[1].key, Key(2, 1));
  EXPECT_EQ(out_.ended[1].finish, FinishReason::kDeadline);
  EXPECT_EQ(core_.NextWake(), Time::Never());
  // Its KV is lost with the worker that computed it: its prefill comes again, what it emitted included.
  core_.OnWorkerDown(WorkerId{0}, now_, &out_);
  EXPECT_THAT(out_.ended, SizeIs(2));
  EXPECT_EQ(core_.num_between(), 0);
  EXPECT_EQ(core_.num_pooled() + static_cast<int32_t>(out_.dispatch.size()), 1);
}

TEST_F(TwoStagesTest, ACancelledPrefillDoesNotMove) {
  Arrive(1);
  core_.OnCancel(RequestId{1}, now_, &out_);
  EXPECT_THAT(out_.cancel, SizeIs(1));
  out_.Clear();
  decodes_[1] = 1;
  Step(0, {{Key(1), 0}});
  EXPECT_TRUE(out_.empty());
  EXPECT_EQ(Step(0, {{Key(1), -1, FinishReason::kCancelled}}), 1);
  EXPECT_TRUE(core_.idle());
  EXPECT_EQ(LoadOf(0).num_bound + LoadOf(0).num_prefills, 0);
}

TEST_F(TwoStagesTest, SamplesMoveTogetherWhenAllHaveBegun) {
  Arrive(1, 3);
  EXPECT_EQ(LoadOf(0).num_prefills, 3);
  out_.Clear();
  decodes_[1] = 1;
  Step(0, {{Key(1), 0}, {Key(1, 0, 2), 0, FinishReason::kStop}});
  EXPECT_TRUE(out_.empty());
  EXPECT_EQ(LoadOf(0).num_prefills, 2);
  Step(0, {{Key(1), 1}, {Key(1, 0, 1), 0}});
  ASSERT_THAT(out_.dispatch, SizeIs(2));
  EXPECT_THAT(*out_.dispatch[0].submit.tokens, ElementsAre(7, 8, 9, 40, 41));
  EXPECT_EQ(out_.dispatch[0].submit.kv_source->num_tokens, 4);
  EXPECT_THAT(*out_.dispatch[1].submit.tokens, ElementsAre(7, 8, 9, 40));
  EXPECT_EQ(out_.dispatch[1].submit.sampling.seed, 101u);
  EXPECT_EQ(LoadOf(1).num_bound, 2);
}

TEST_F(TwoStagesTest, APlanThatComesLateIsNotUsed) {
  auto policy = std::make_unique<Told>(&decodes_);
  const Told& told = *policy;
  RouterCore core(AdmissionLimits{}, std::move(policy));
  for (const uint64_t id : {2, 1, 3}) {
    core.OnPlanReady({.id = PlanId{id}, .question = {}, .answer = {}}, now_, &out_);
  }
  EXPECT_THAT(told.plans, ElementsAre(2, 3));
}

}  // namespace
}  // namespace orrery
