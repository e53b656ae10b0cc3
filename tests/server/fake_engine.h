// An engine for server tests: token ids are a function of the position, steps take as long as told, and a
// gate can hold a step for as long as a test wants.
#ifndef ORRERY_TESTS_SERVER_FAKE_ENGINE_H_
#define ORRERY_TESTS_SERVER_FAKE_ENGINE_H_

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "engine/executor.h"

namespace orrery::testing {

// What a test sees and steers; shared with the engine, which the server owns.
struct EngineControl {
  std::mutex mutex;
  std::condition_variable changed;
  bool held = false;                 // guarded by mutex
  std::atomic<int64_t> hold_at{-1};  // holds by itself when so many steps are done
  std::atomic<int64_t> step_us{0};
  std::atomic<bool> fail_next{false};
  std::atomic<bool> lost{false};  // no step runs any more
  std::atomic<int64_t> num_steps{0}, num_admitted{0}, num_released{0}, max_rows{0};

  void Hold() {
    std::lock_guard lock(mutex);
    held = true;
  }
  void Release() {
    {
      std::lock_guard lock(mutex);
      held = false;
      hold_at = -1;
    }
    changed.notify_all();
  }
};

// The id sampled as output `index` of any sequence: printable letters in ByteCodec.
inline TokenId FakeToken(int32_t index) { return 'a' + index % 26; }

class FakeEngine final : public Executor {
 public:
  FakeEngine(EngineLimits limits, std::shared_ptr<EngineControl> control)
      : limits_(limits), control_(std::move(control)) {}

  const EngineLimits& limits() const override { return limits_; }
  int max_in_flight() const override { return 1; }

  absl::Status Launch(const StepPlan& plan) override {
    control_->num_admitted += static_cast<int64_t>(plan.admitted.size());
    control_->num_released += static_cast<int64_t>(plan.released_slots.size());
    control_->max_rows = std::max<int64_t>(control_->max_rows, plan.num_tokens);
    for (const AdmittedSequence& admitted : plan.admitted) submits_[admitted.slot] = admitted.submit;
    plan_ = &plan;
    return absl::OkStatus();
  }

  absl::Status Wait(StepId step, StepResult* result) override {
    if (const int64_t us = control_->step_us; us > 0)
      std::this_thread::sleep_for(std::chrono::microseconds(us));
    {
      std::unique_lock lock(control_->mutex);
      control_->held |= control_->num_steps == control_->hold_at;
      control_->changed.wait(lock, [&] { return !control_->held; });
    }
    ++control_->num_steps;
    if (control_->lost) return absl::DataLossError("the device fell off its bus");
    if (control_->fail_next.exchange(false)) return absl::InternalError("the engine broke");
    result->step = step;
    for (const Slice& slice : plan_->slices) {
      if (slice.num_scored > 0) Score(slice, result);
      if (!slice.sample) continue;
      SampledToken token;
      token.sequence = slice.sequence;
      token.token = FakeToken(slice.output_index);
      result->sampled.push_back(std::move(token));
    }
    return absl::OkStatus();
  }

 private:
  // Of the prompt token at position p: -p, and the alternatives are -p - 1, -p - 2 and so on of ids 0, 1, ...
  void Score(const Slice& slice, StepResult* result) {
    const Submit& submit = *submits_.at(slice.slot);
    auto logprobs = std::make_shared<PromptLogprobs>();
    logprobs->begin = slice.ScoredBegin(submit.num_prompt) + 1;
    logprobs->num_top = submit.sampling.num_prompt_logprobs;
    for (int32_t p = logprobs->begin; p < logprobs->begin + slice.num_scored; ++p) {
      logprobs->chosen.push_back(static_cast<float>(-p));
      for (int32_t k = 0; k < logprobs->num_top; ++k) {
        logprobs->top.emplace_back(k, static_cast<float>(-p - 1 - k));
      }
    }
    result->scored.emplace_back().sequence = slice.sequence;
    result->scored.back().logprobs = std::move(logprobs);
  }

  const EngineLimits limits_;
  std::shared_ptr<EngineControl> control_;
  std::map<uint32_t, std::shared_ptr<const Submit>> submits_;  // by slot
  const StepPlan* plan_ = nullptr;
};

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_SERVER_FAKE_ENGINE_H_
