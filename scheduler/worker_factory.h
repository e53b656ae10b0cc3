// A worker from names: the policies of the registry (`NAME[:key=value,...]`) and the options. The same
// specification heads a journal, so that a replay builds exactly the worker that was recorded.
#ifndef ORRERY_SCHEDULER_WORKER_FACTORY_H_
#define ORRERY_SCHEDULER_WORKER_FACTORY_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "scheduler/worker_core.h"

namespace orrery {

struct WorkerSpec {
  WorkerOptions options;
  std::string scheduler = "fcfs";
  std::string eviction = "lru";
  std::string predictor = "request-bound";
  std::string cost;  // ParseStepCost's form ("constant:MS", "linear:..."); empty: none
};

// Unknown name (the nearest is suggested), unknown option or value out of range: INVALID_ARGUMENT, one line.
// `predictor`, where given, takes the place of the named one (a simulator's oracle has no name here).
absl::StatusOr<std::unique_ptr<WorkerCore>> NewWorkerCore(
    const WorkerSpec& spec, std::shared_ptr<LengthPredictor> predictor = nullptr);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_WORKER_FACTORY_H_
