// Why a request was not accepted, as data: reason, the field at fault and its limit travel inside the
// absl::Status that the cores return, so that the edge can answer with a typed error without reading prose.
#ifndef ORRERY_SCHEDULER_TYPES_REFUSAL_H_
#define ORRERY_SCHEDULER_TYPES_REFUSAL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "scheduler/base/time.h"

namespace orrery {

enum class RefusalReason : uint8_t {
  kInvalid,        // INVALID_ARGUMENT
  kDuplicate,      // ALREADY_EXISTS
  kContext,        // INVALID_ARGUMENT: prompt and output exceed the context
  kKvTooSmall,     // RESOURCE_EXHAUSTED: can never fit the KV pool
  kQueueFull,      // RESOURCE_EXHAUSTED
  kPredictedWait,  // RESOURCE_EXHAUSTED
  kShed,           // RESOURCE_EXHAUSTED
  kTenantLimit,    // RESOURCE_EXHAUSTED
  kDeadline,       // DEADLINE_EXCEEDED: passed before it was accepted
  kDraining,       // UNAVAILABLE
  kNoWorker,       // UNAVAILABLE
};

struct Refusal {
  RefusalReason reason = RefusalReason::kInvalid;
  std::string field{};  // of the request (or of the server's limits, for load): "max_tokens", "token_ids"...
  int64_t limit = 0;    // in the unit of the field
  int64_t actual = 0;   // what was asked for, or what there is now
  Duration predicted_wait{};  // load: when a retry may succeed; 0: unknown
  std::string message{};      // one line for people
};

// The reason as interfaces.md spells it: "queue_full", "kv_too_small", ...
std::string_view ReasonName(RefusalReason reason);

// A status whose code follows from the reason, with the refusal as payload.
absl::Status ToStatus(const Refusal& refusal);
// The refusal inside `status`; nothing when it carries none.
std::optional<Refusal> RefusalOf(const absl::Status& status);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_TYPES_REFUSAL_H_
