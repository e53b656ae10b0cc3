// An Executor turns a StepPlan into a StepResult: the only thing that a simulator replaces on a worker.
//
// Single owner thread. Launch enqueues a step and does not wait; Wait blocks until that step is done. Steps
// run and are waited for in launch order: a block or slot that one plan frees may be written by the next. At
// most max_in_flight() steps are between Launch and Wait (CPU 1, CUDA 2).
#ifndef ORRERY_ENGINE_EXECUTOR_H_
#define ORRERY_ENGINE_EXECUTOR_H_

#include <cstdint>

#include "absl/status/status.h"
#include "scheduler/types/step_plan.h"

namespace orrery {

// What a worker must know of its engine before it can plan.
struct EngineLimits {
  int32_t num_blocks = 0;
  int32_t block_tokens = 16;
  int32_t max_num_seqs = 0;     // engine slots
  int32_t max_step_tokens = 0;  // rows of one step
  int32_t max_context = 0;      // tokens of one sequence
  int32_t vocab_size = 0;
};

class Executor {
 public:
  virtual ~Executor() = default;
  virtual const EngineLimits& limits() const = 0;
  // The plan must stay unchanged until Wait of the same step returns. An error means the step did not start.
  virtual absl::Status Launch(const StepPlan& plan) = 0;
  // Fills *result (start and end are left to the caller). An error means that all sequences of the step are
  // lost; DataLoss that no step will ever run again.
  virtual absl::Status Wait(StepId step, StepResult* result) = 0;
  virtual int max_in_flight() const = 0;
};

}  // namespace orrery

#endif  // ORRERY_ENGINE_EXECUTOR_H_
