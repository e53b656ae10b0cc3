#include "scheduler/types/refusal.h"

#include <vector>

#include "absl/strings/cord.h"
#include "scheduler/base/text.h"

namespace orrery {
namespace {

constexpr char kPayloadType[] = "orrery/refusal";

absl::StatusCode CodeOf(RefusalReason reason) {
  switch (reason) {
    case RefusalReason::kInvalid:
    case RefusalReason::kContext:
      return absl::StatusCode::kInvalidArgument;
    case RefusalReason::kDuplicate:
      return absl::StatusCode::kAlreadyExists;
    case RefusalReason::kDeadline:
      return absl::StatusCode::kDeadlineExceeded;
    case RefusalReason::kDraining:
    case RefusalReason::kNoWorker:
      return absl::StatusCode::kUnavailable;
    case RefusalReason::kKvTooSmall:
    case RefusalReason::kQueueFull:
    case RefusalReason::kPredictedWait:
    case RefusalReason::kShed:
    case RefusalReason::kTenantLimit:
      return absl::StatusCode::kResourceExhausted;
  }
  return absl::StatusCode::kInternal;
}

}  // namespace

std::string_view ReasonName(RefusalReason reason) {
  switch (reason) {
    case RefusalReason::kInvalid:
      return "invalid";
    case RefusalReason::kDuplicate:
      return "duplicate";
    case RefusalReason::kContext:
      return "context";
    case RefusalReason::kKvTooSmall:
      return "kv_too_small";
    case RefusalReason::kQueueFull:
      return "queue_full";
    case RefusalReason::kPredictedWait:
      return "predicted_wait";
    case RefusalReason::kShed:
      return "shed";
    case RefusalReason::kTenantLimit:
      return "tenant_limit";
    case RefusalReason::kDeadline:
      return "deadline";
    case RefusalReason::kDraining:
      return "draining";
    case RefusalReason::kNoWorker:
      return "no_worker";
  }
  return "unknown";
}

absl::Status ToStatus(const Refusal& refusal) {
  absl::Status status(CodeOf(refusal.reason), refusal.message);
  // The message itself is the status's; field names hold no line breaks.
  status.SetPayload(kPayloadType,
                    absl::Cord(Cat(static_cast<int>(refusal.reason), "\n", refusal.field, "\n", refusal.limit,
                                   "\n", refusal.actual, "\n", refusal.predicted_wait.ns)));
  return status;
}

std::optional<Refusal> RefusalOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadType);
  if (!payload.has_value()) return std::nullopt;
  const std::string text(*payload);
  const std::vector<std::string_view> parts = Split(text, '\n');
  if (parts.size() != 5) return std::nullopt;
  const auto reason = ParseNumber<int>(parts[0]);
  const auto limit = ParseNumber<int64_t>(parts[2]), actual = ParseNumber<int64_t>(parts[3]);
  const auto wait_ns = ParseNumber<int64_t>(parts[4]);
  if (!reason || !limit || !actual || !wait_ns || *reason < 0 ||
      *reason > static_cast<int>(RefusalReason::kNoWorker)) {
    return std::nullopt;
  }
  return Refusal{.reason = static_cast<RefusalReason>(*reason),
                 .field = std::string(parts[1]),
                 .limit = *limit,
                 .actual = *actual,
                 .predicted_wait = Duration::Nanoseconds(*wait_ns),
                 .message = std::string(status.message())};
}

}  // namespace orrery
