// `--backend modeled`: computes nothing, takes the time that a cost function predicts for each step, and
// gives tokens by token_function.h, with log-probabilities of 0 where they are asked for. What a cluster of
// accelerators looks like from above, on any machine.
#ifndef ORRERY_ENGINE_MODELED_EXECUTOR_H_
#define ORRERY_ENGINE_MODELED_EXECUTOR_H_

#include <chrono>
#include <deque>
#include <functional>

#include "engine/executor.h"
#include "engine/fake_executor.h"
#include "scheduler/base/time.h"

namespace orrery {

// Predicted duration of a step from its composition; a pure function, >= 0.
using StepCostFunction = std::function<Duration(const StepPlan&)>;

class ModeledExecutor final : public Executor {
 public:
  ModeledExecutor(const EngineLimits& limits, int max_in_flight, StepCostFunction cost);

  const EngineLimits& limits() const override { return tokens_.limits(); }
  // A step starts when it is launched and the one before is over.
  absl::Status Launch(const StepPlan& plan) override;
  // Sleeps until the step's end.
  absl::Status Wait(StepId step, StepResult* result) override;
  int max_in_flight() const override { return tokens_.max_in_flight(); }

 private:
  using Clock = std::chrono::steady_clock;
  FakeExecutor tokens_;
  StepCostFunction cost_;
  Clock::time_point busy_until_{};
  std::deque<Clock::time_point> ends_;  // of the steps in flight
};

}  // namespace orrery

#endif  // ORRERY_ENGINE_MODELED_EXECUTOR_H_
