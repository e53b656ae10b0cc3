#include "tests/engine/worker_driver.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/worker_factory.h"
#include "tests/engine/test_model.h"
#include "tests/engine/worker_spec.h"

namespace orrery::testing {

nlohmann::json OneLayer() {
  nlohmann::json config = TinyConfig("llama");
  config["hidden_size"] = 32;
  config["intermediate_size"] = 32;
  config["head_dim"] = 64;
  config["num_hidden_layers"] = 1;
  config["num_attention_heads"] = 1;
  config["num_key_value_heads"] = 1;
  return config;
}

WorkerDriver::WorkerDriver(const EngineOptions& options, const OpenCuda& open, int depth) {
  auto engines = LoadCudaEngines(options, open);
  EXPECT_TRUE(engines.ok()) << engines.status();
  executor_ = std::move(engines->executors.front());
  EXPECT_EQ(executor_->max_in_flight(), 2);
  WorkerSpec spec = WorkerSpecOf(executor_->limits());
  spec.scheduler = "fcfs:watermark=0";
  spec.options.max_in_flight = depth;
  core_ = *NewWorkerCore(spec);
}

void WorkerDriver::Arrive(Submit submit) {
  const SampleKey key = submit.key;
  answers_[key];
  ASSERT_TRUE(core_->OnArrival(std::move(submit), now_).ok());
}

void WorkerDriver::Cancel(const SampleKey& key) {
  core_->OnCancel(key, now_, &events_);
  Receive();
}

void WorkerDriver::Turn() {
  now_ = now_ + Duration::Microseconds(100);
  while (core_->can_plan() && core_->has_work()) {
    const StepPlan& plan = core_->Plan(now_);
    if (plan.empty()) break;
    for (const Slice& slice : plan.slices) rows_ahead_ += slice.input == InputSource::kPreviousStep;
    if (before_launch_) before_launch_();
    const absl::Status status = executor_->Launch(plan);
    ASSERT_TRUE(status.ok()) << status;
    flying_.push_back(plan.step);
  }
  if (flying_.empty()) return;
  StepResult result;
  const absl::Status status = executor_->Wait(flying_.front(), &result);
  const absl::Status taken =
      status.ok() ? core_->OnStepDone(result, now_, &events_)
                  : core_->OnStepFailed(flying_.front(), std::string(status.message()), now_, &events_);
  flying_.pop_front();
  ASSERT_TRUE(taken.ok()) << taken;
  ASSERT_TRUE(core_->CheckInvariants().ok()) << core_->CheckInvariants();
  Receive();
}

void WorkerDriver::Finish() {
  for (int turns = 0; !core_->idle(); ++turns) {
    ASSERT_LT(turns, 20000);
    Turn();
    if (::testing::Test::HasFatalFailure()) return;
  }
}

void WorkerDriver::Receive() {
  for (const TokenEvent& event : events_) {
    Answer& answer = answers_.at(event.key);
    EXPECT_EQ(answer.finish, FinishReason::kNone);
    if (event.token >= 0) answer.tokens.push_back(event.token);
    if (event.logprobs != nullptr) answer.logprobs.push_back(event.logprobs->chosen);
    if (event.prompt_logprobs != nullptr) {
      const std::vector<float>& part = event.prompt_logprobs->chosen;
      answer.prompt_logprobs.insert(answer.prompt_logprobs.end(), part.begin(), part.end());
    }
    answer.finish = event.finish;
  }
  events_.clear();
}

void ExpectTheSame(const Answers& ours, const Answers& expected) {
  ASSERT_EQ(ours.size(), expected.size());
  for (const auto& [key, answer] : ours) {
    SCOPED_TRACE(absl::StrCat("request ", Value(key.request)));
    const Answer& other = expected.at(key);
    const bool cancelled =
        answer.finish == FinishReason::kCancelled || other.finish == FinishReason::kCancelled;
    const auto same = [](const auto& a, const auto& b, bool whole) {
      const size_t size = std::min(a.size(), b.size());
      return (!whole || a.size() == b.size()) && std::equal(a.begin(), a.begin() + size, b.begin());
    };
    EXPECT_TRUE(cancelled || answer.finish == other.finish);
    EXPECT_TRUE(same(answer.tokens, other.tokens, !cancelled));
    EXPECT_TRUE(same(answer.logprobs, other.logprobs, !cancelled));
    const bool broken = answer.finish == FinishReason::kError;
    EXPECT_TRUE(same(answer.prompt_logprobs, other.prompt_logprobs, !cancelled && !broken));
  }
}

}  // namespace orrery::testing
