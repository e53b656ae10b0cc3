// What a simulation tells while it runs. Everything is told once, in simulated order; summing up, percentiles
// and files are the listener's.
#ifndef ORRERY_ROUTER_SIM_OBSERVER_H_
#define ORRERY_ROUTER_SIM_OBSERVER_H_

#include <cstdint>
#include <string_view>

#include "router/sim/workload.h"
#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/cost/step_cost.h"
#include "scheduler/types/decision_record.h"

namespace orrery::sim {

enum class Outcome : uint8_t {
  kCompleted,
  kRejected,   // refused for load or size; `reason` as in Refusal
  kCancelled,  // its patience ended
  kFailed,     // its workers were lost too often, or none was left
};

struct RequestEnd {
  uint64_t serial = 0;  // position in order of arrival, from 0
  Outcome outcome = Outcome::kCompleted;
  bool measured = false;  // not part of the warm-up
  std::string_view reason;
  Time end;                              // of the last token, or when it left
  Time first_scheduled = Time::Never();  // Never(): not reached
  Time first_token = Time::Never();
  int32_t made_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t num_preemptions = 0;
};

struct StepFacts {
  WorkerId worker{};
  Time start, end;
  StepShape shape;
  int64_t kv_tokens = 0;    // resident after the step was planned
  int32_t num_samples = 0;  // tokens it makes
  int32_t num_running = 0, num_waiting = 0;
  int32_t pooled = 0;  // requests that wait in the router
  bool measured = false;
};

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void OnRequestEnd(const SimRequest& request, const RequestEnd& end) = 0;
  // `count` tokens of requests of one class came `gap` after the one before; measured ones only.
  virtual void OnTokenGaps(int32_t class_index, Duration gap, int64_t count) = 0;
  virtual void OnStep(const StepFacts& step) = 0;
  // A step was decided; `wall_ns` by SimOptions::wall_clock, negative without one and for a step that was
  // known beforehand.
  virtual void OnDecision(const DecisionRecord& why, int64_t wall_ns) = 0;
};

}  // namespace orrery::sim

#endif  // ORRERY_ROUTER_SIM_OBSERVER_H_
