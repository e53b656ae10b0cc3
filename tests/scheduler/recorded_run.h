// A short, eventful life of one worker, recorded: what the journal tests and the fuzzer's seeds are made of.
#ifndef ORRERY_TESTS_SCHEDULER_RECORDED_RUN_H_
#define ORRERY_TESTS_SCHEDULER_RECORDED_RUN_H_

#include <string>

#include "scheduler/worker_factory.h"

namespace orrery {

// Runs a worker built from `spec` through arrivals, shared prefixes, cancels, a deadline, a failed step,
// memory pressure and a drain, and returns its journal, whose header is `header`.
std::string RecordRun(const WorkerSpec& spec, const WorkerSpec& header);

// A worker small enough for preemption and eviction.
WorkerSpec SmallWorker(int depth);

}  // namespace orrery

#endif  // ORRERY_TESTS_SCHEDULER_RECORDED_RUN_H_
