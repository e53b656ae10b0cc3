#include "scheduler/types/refusal.h"

#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

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
  status.SetPayload(kPayloadType, absl::Cord(absl::StrCat(static_cast<int>(refusal.reason), "\n",
                                                          refusal.field, "\n", refusal.limit, "\n",
                                                          refusal.actual, "\n", refusal.predicted_wait.ns)));
  return status;
}

std::optional<Refusal> RefusalOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadType);
  if (!payload.has_value()) return std::nullopt;
  const std::string text(*payload);
  const std::vector<std::string> parts = absl::StrSplit(text, '\n');
  Refusal refusal;
  int reason = 0;
  if (parts.size() != 5 || !absl::SimpleAtoi(parts[0], &reason) || reason < 0 ||
      reason > static_cast<int>(RefusalReason::kNoWorker) || !absl::SimpleAtoi(parts[2], &refusal.limit) ||
      !absl::SimpleAtoi(parts[3], &refusal.actual) ||
      !absl::SimpleAtoi(parts[4], &refusal.predicted_wait.ns)) {
    return std::nullopt;
  }
  refusal.reason = static_cast<RefusalReason>(reason);
  refusal.field = parts[1];
  refusal.message = std::string(status.message());
  return refusal;
}

}  // namespace orrery
