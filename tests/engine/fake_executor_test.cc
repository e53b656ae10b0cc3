#include "engine/fake_executor.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "engine/modeled_executor.h"
#include "scheduler/base/random.h"
#include "tests/engine/plan_driver.h"

namespace orrery {
namespace {

using testing::Greedy;
using testing::PlanDriver;

EngineLimits Limits() {
  EngineLimits limits;
  limits.num_blocks = 200;
  limits.max_num_seqs = 8;
  limits.max_step_tokens = 64;
  limits.max_context = 400;
  limits.vocab_size = 1000;
  return limits;
}

TEST(FakeExecutor, TokensAreAFunctionOfRequestAndIndex) {
  FakeExecutor one({.limits = Limits()}), other({.limits = Limits()});
  PlanDriver alone(one), crowd(other);
  alone.Add({4, 5, 6}, 50, Greedy());
  for (int i = 0; i < 8; ++i)
    crowd.Add(std::vector<TokenId>(static_cast<size_t>(3 + 10 * i), 4 + i), 50, Greedy());
  ASSERT_TRUE(alone.RunAll(64).ok());
  ASSERT_TRUE(crowd.RunAll(5).ok());
  EXPECT_EQ(alone.sequence(0).output, crowd.sequence(0).output);
  EXPECT_NE(crowd.sequence(0).output, crowd.sequence(1).output);
  for (const TokenId id : alone.sequence(0).output) {
    EXPECT_GE(id, 3);
    EXPECT_LT(id, 1000);
  }
}

// Random work with preemptions and releases never trips the checks: they accuse plans, not the executor.
TEST(FakeExecutor, RandomLegalPlansAreAccepted) {
  FakeExecutor executor({.limits = Limits()});
  PlanDriver driver(executor);
  RandomStream random(5);
  Sampling scoring = Greedy();
  scoring.num_prompt_logprobs = 3;
  std::vector<int> live;
  for (int step = 0; step < 2000; ++step) {
    if (live.size() < 8 && random.Below(4) == 0) {
      live.push_back(
          driver.Add(std::vector<TokenId>(1 + random.Below(60), static_cast<TokenId>(random.Below(1000))),
                     static_cast<int32_t>(1 + random.Below(60)), random.Below(2) == 0 ? Greedy() : scoring));
    }
    std::vector<std::pair<int, int32_t>> work;
    for (size_t i = 0; i < live.size();) {
      if (driver.sequence(live[i]).done() || random.Below(200) == 0) {
        driver.Release(live[i]);
        live.erase(live.begin() + static_cast<ptrdiff_t>(i));
        continue;
      }
      if (random.Below(50) == 0) driver.Preempt(live[i]);
      if (random.Below(3) != 0) work.emplace_back(live[i], static_cast<int32_t>(1 + random.Below(8)));
      ++i;
    }
    ASSERT_TRUE(driver.Step(work).ok()) << "step " << step;
  }
  for (const int handle : live) driver.Release(handle);
  ASSERT_TRUE(driver.Step({}).ok());
  EXPECT_EQ(executor.active_slots(), 0);
  EXPECT_EQ(driver.num_free_blocks(), 200);
}

class FakeExecutorChecks : public ::testing::Test {
 protected:
  FakeExecutorChecks() : executor_({.limits = Limits()}), driver_(executor_) {}
  FakeExecutor executor_;
  PlanDriver driver_;
};

TEST_F(FakeExecutorChecks, ForeignBlocksAreFound) {
  const int a = driver_.Add(std::vector<TokenId>(20, 7), 10, Greedy());
  const int b = driver_.Add(std::vector<TokenId>(20, 8), 10, Greedy());
  ASSERT_TRUE(driver_.Step({{a, 20}, {b, 20}}).ok());
  std::swap(driver_.sequence(a).blocks[0], driver_.sequence(b).blocks[0]);
  const absl::Status status = driver_.Step({{a, 1}});
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_NE(status.message().find("foreign prefix"), absl::string_view::npos) << status;
}

TEST_F(FakeExecutorChecks, FalsePrefixHitsAreFoundAndTrueOnesAccepted) {
  const int a = driver_.Add(std::vector<TokenId>(32, 7), 10, Greedy());
  ASSERT_TRUE(driver_.Step({{a, 32}}).ok());
  const int hit = driver_.Add(std::vector<TokenId>(32, 7), 10, Greedy());
  driver_.sequence(hit).blocks = {driver_.sequence(a).blocks[0]};
  driver_.sequence(hit).computed = 16;
  EXPECT_TRUE(driver_.Step({{hit, 16}}).ok());
  std::vector<TokenId> other(32, 7);
  other[3] = 9;
  const int miss = driver_.Add(other, 10, Greedy());
  driver_.sequence(miss).blocks = {driver_.sequence(a).blocks[0]};
  driver_.sequence(miss).computed = 16;
  EXPECT_FALSE(driver_.Step({{miss, 16}}).ok());
}

TEST(FakeExecutor, InjectedFaultsArriveWhereTheyWereAimed) {
  FakeExecutorOptions options;
  options.limits = Limits();
  options.fail_launch = [](const StepPlan& plan) {
    return Value(plan.step) == 2 ? absl::UnavailableError("no start") : absl::OkStatus();
  };
  options.fail_wait = [](const StepPlan& plan) {
    return Value(plan.step) == 3 ? absl::DataLossError("lost") : absl::OkStatus();
  };
  options.numerical_error = [](const SampleKey&, int32_t index) { return index == 1; };
  FakeExecutor executor(std::move(options));
  PlanDriver driver(executor);
  const int handle = driver.Add({4, 5}, 5, Greedy());
  EXPECT_TRUE(driver.Step({{handle, 2}}).ok());
  EXPECT_EQ(driver.Step({{handle, 1}}).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(driver.Step({{handle, 1}}).code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(driver.Step({{handle, 1}}).ok());
  EXPECT_TRUE(driver.sequence(handle).failed);
}

// Depth 2: the second step feeds on the token that the first one has not handed out yet.
TEST(FakeExecutor, TwoStepsInFlight) {
  FakeExecutor executor({.limits = Limits(), .max_in_flight = 2});
  auto submit = std::make_shared<Submit>();
  submit->tokens = std::make_shared<const std::vector<TokenId>>(std::vector<TokenId>{5, 6});
  submit->num_prompt = 2;
  StepPlan first, second, third;
  first.step = StepId{1};
  first.admitted = {{SequenceId{1}, 0, submit}};
  first.slices = {{.sequence = SequenceId{1}, .slot = 0, .begin = 0, .count = 2, .sample = true}};
  first.blocks = {BlockId{3}};
  first.block_begin = {0, 1};
  first.num_tokens = 2;
  first.num_samples = 1;
  second = first;
  second.step = StepId{2};
  second.admitted.clear();
  second.slices[0].begin = 2;
  second.slices[0].count = 1;
  second.slices[0].input = InputSource::kPreviousStep;
  second.slices[0].output_index = 1;
  second.num_tokens = 1;
  third = second;
  ASSERT_TRUE(executor.Launch(first).ok());
  ASSERT_TRUE(executor.Launch(second).ok());
  EXPECT_FALSE(executor.Launch(third).ok());
  StepResult result;
  EXPECT_FALSE(executor.Wait(StepId{2}, &result).ok()) << "out of order";
  ASSERT_TRUE(executor.Wait(StepId{1}, &result).ok());
  EXPECT_EQ(result.sampled.at(0).token, TokenAt(submit->key, 0, 1000));
  ASSERT_TRUE(executor.Wait(StepId{2}, &result).ok());
  EXPECT_EQ(result.sampled.at(0).token, TokenAt(submit->key, 1, 1000));
}

TEST(ModeledExecutor, TakesAtLeastThePredictedTimeAndGivesTheSameTokens) {
  int64_t asked = 0;
  ModeledExecutor modeled(Limits(), 1, [&](const StepPlan& plan) {
    ++asked;
    return Duration::Microseconds(200 + 10 * plan.num_tokens);
  });
  FakeExecutor fake({.limits = Limits()});
  PlanDriver slow(modeled), fast(fake);
  slow.Add({4, 5, 6}, 20, Greedy());
  fast.Add({4, 5, 6}, 20, Greedy());
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(slow.RunAll(64).ok());
  // A lower bound only: sleeping longer is the system's right.
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::microseconds(20 * 210));
  ASSERT_TRUE(fast.RunAll(64).ok());
  EXPECT_EQ(asked, 20);
  EXPECT_EQ(slow.sequence(0).output, fast.sequence(0).output);
}

}  // namespace
}  // namespace orrery
