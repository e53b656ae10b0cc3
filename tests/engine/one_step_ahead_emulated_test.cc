// One step ahead on the emulated device alone: launches that fail, plans that do not fit.
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "engine/cuda/staging.h"
#include "kernels/emulate/launch.h"
#include "tests/engine/emulated_device.h"
#include "tests/engine/test_model.h"
#include "tests/engine/worker_driver.h"

namespace orrery {
namespace {

using testing::WorkerDriver;

class EmulatedAheadTest : public ::testing::Test {
 protected:
  EmulatedAheadTest() {
    const nlohmann::json config = testing::OneLayer();
    testing::WriteModel(dir_.path(), config, testing::RandomTensors(config, 4, 0.4f), DType::kBF16);
    options_.model_dir = dir_.path();
    options_.kv_cache_tokens = 16 * 40;
    options_.max_num_seqs = 16;
    options_.max_step_tokens = 64;
    options_.max_context = 80;
    options_.batch_invariant = false;
  }
  static OpenCuda Open(bool lazy) {
    return [=](const EngineOptions&) -> absl::StatusOr<CudaParts> {
      return CudaParts{.device = testing::NewEmulatedDevice({.lazy = lazy}), .gemm = testing::NewPlainGemm()};
    };
  }

  testing::TempDir dir_;
  EngineOptions options_;
};

// A launch that the device refuses costs the sequences of its step, not those of the step before, which is in
// flight, nor what comes after.
TEST_F(EmulatedAheadTest, AFailedStepIsItsOwn) {
  for (const bool lazy : {false, true}) {
    WorkerDriver worker(options_, Open(lazy), 2);
    const auto arrive = [&](uint64_t id) {
      Submit submit;
      submit.key.request = RequestId{id};
      submit.tokens = std::make_shared<const std::vector<TokenId>>(std::vector<TokenId>{1, 2, 3});
      submit.num_prompt = 3;
      submit.stop.max_tokens = 6;
      worker.Arrive(std::move(submit));
    };
    arrive(1);
    int launches = 0;
    worker.set_before_launch([&] {
      if (++launches == 4) emulate::LaunchGrid({1, 1, 1}, 1 << 20, 0, [] {});
    });
    worker.Finish();
    arrive(2);
    worker.Finish();
    ASSERT_FALSE(HasFatalFailure());
    EXPECT_EQ(worker.answers().at({.request = RequestId{1}}).finish, FinishReason::kError);
    EXPECT_EQ(worker.answers().at({.request = RequestId{1}}).tokens.size(), 3u);
    EXPECT_EQ(worker.answers().at({.request = RequestId{2}}).finish, FinishReason::kLength);
  }
}

TEST_F(EmulatedAheadTest, PlansThatDoNotFitTheStepInFlightAreRefused) {
  WorkerDriver worker(options_, Open(true), 2);
  ModelExecutor& executor = worker.executor();
  auto submit = std::make_shared<Submit>();
  submit->tokens = std::make_shared<const std::vector<TokenId>>(std::vector<TokenId>{5, 6});
  submit->num_prompt = 2;
  submit->stop.max_tokens = 9;
  auto penalised = std::make_shared<Submit>(*submit);
  penalised->sampling.frequency_penalty = 1;
  StepPlan first;
  first.step = StepId{1};
  first.admitted = {{SequenceId{1}, 0, submit}, {SequenceId{2}, 1, penalised}, {SequenceId{3}, 2, submit}};
  first.slices = {{.sequence = SequenceId{1}, .slot = 0, .begin = 0, .count = 2, .sample = true},
                  {.sequence = SequenceId{2}, .slot = 1, .begin = 0, .count = 2, .sample = true}};
  first.blocks = {BlockId{3}, BlockId{4}};
  first.block_begin = {0, 1, 2};
  first.num_tokens = 4;
  first.num_samples = 2;
  const auto ahead = [](uint64_t sequence, uint32_t slot) {
    StepPlan plan;
    plan.step = StepId{2};
    plan.slices = {{.sequence = SequenceId{sequence},
                    .slot = slot,
                    .begin = 2,
                    .count = 1,
                    .sample = true,
                    .input = InputSource::kPreviousStep,
                    .output_index = 1}};
    plan.blocks = {BlockId{static_cast<int32_t>(3 + slot)}};
    plan.block_begin = {0, 1};
    plan.num_tokens = plan.num_samples = 1;
    return plan;
  };
  const auto message = [&](const StepPlan& plan) { return std::string(executor.Launch(plan).message()); };
  ASSERT_TRUE(executor.Launch(first).ok());
  EXPECT_EQ(message(ahead(2, 1)), "step 2: slice 0 has penalties of a token in flight");
  EXPECT_EQ(message(ahead(3, 2)), "step 2: slice 0 is not the token of the step in flight");
  StepPlan second = ahead(1, 0);
  second.slices[0].begin = 1;
  EXPECT_EQ(message(second), "step 2: slice 0 is not the token of the step in flight");
  second = ahead(1, 0);
  second.slices[0].output_index = 0;
  EXPECT_EQ(message(second), "step 2: slice 0 samples before its last token");
  second = ahead(1, 0);
  ASSERT_TRUE(executor.Launch(second).ok());
  StepPlan third = ahead(1, 0);
  third.step = StepId{3};
  EXPECT_EQ(message(third), "step 3: at most 2 steps can be in flight");
  StepResult result;
  EXPECT_FALSE(executor.Wait(StepId{2}, &result).ok()) << "out of order";
  ASSERT_TRUE(executor.Wait(StepId{1}, &result).ok());
  EXPECT_EQ(result.sampled.size(), 2u);
  // What is in flight when the executor goes is not waited for by anybody.
}

// The measure of the tests above: what is written too early shows on a device that takes its time.
TEST(LazyDeviceTest, ShowsABufferThatIsWrittenBeforeItsStepIsDone) {
  const auto device = testing::NewEmulatedDevice({.lazy = true});
  cuda::Staging staging;
  ASSERT_TRUE(staging.Allocate(*device, 1024).ok());
  const int32_t* on_device = nullptr;
  std::vector<std::unique_ptr<cuda::Event>> done;
  for (int32_t step = 1; step <= 3; ++step) {
    staging.BeginStep();
    on_device = staging.Put(absl::MakeConstSpan(std::vector<int32_t>{step}));
    staging.Upload();
    done.push_back(*device->NewEvent());
    device->Record(*done.back());
    EXPECT_EQ(*on_device, 0) << "nobody waited";
  }
  ASSERT_TRUE(device->Wait(*done[0]).ok());
  EXPECT_EQ(*on_device, 3) << "the third step took the first one's memory before that was done";
  ASSERT_TRUE(device->Wait(*done[1]).ok());
  EXPECT_EQ(*on_device, 2);
}

}  // namespace
}  // namespace orrery
