// May this request come in? Pure checks before anything is queued: what can never run is refused as such, and
// load is refused with a reason and the wait that was predicted, so that a client knows when to come back.
#ifndef ORRERY_ROUTER_ADMISSION_H_
#define ORRERY_ROUTER_ADMISSION_H_

#include <cstdint>

#include "absl/status/status.h"
#include "scheduler/base/time.h"
#include "scheduler/types/request.h"

namespace orrery {

struct AdmissionLimits {
  int64_t max_queue_tokens = 1'000'000;  // prompt tokens accepted and not yet computed
  Duration max_predicted_wait = Duration::Infinite();
  int32_t max_samples = 128;  // n of one request
};

// What the workers together can hold: the largest of each.
struct AdmissionCapacity {
  int32_t max_context = 0;
  int64_t kv_tokens = 0;
  int32_t num_workers = 0;  // that accept requests
};

struct QueueState {
  int64_t queued_tokens = 0;
  double tokens_per_s = 0;  // at which the queue was served lately; 0: unknown
};

// How long a request accepted now waits until its first token; 0 where the rate is unknown.
Duration PredictedWait(const QueueState& queue);

// OK, or the refusal (scheduler/types/refusal.h): no_worker, context, kv_too_small, invalid (n), deadline,
// queue_full, predicted_wait. An empty queue takes any request that can run.
absl::Status CheckAdmission(const AdmissionLimits& limits, const AdmissionCapacity& capacity,
                            const QueueState& queue, const Submit& submit, int32_t num_samples, Time now);

}  // namespace orrery

#endif  // ORRERY_ROUTER_ADMISSION_H_
