#include "server/base/errors.h"

#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/status.pb.h"
#include "scheduler/types/refusal.h"

namespace orrery {
namespace {

using orrery::v1::ErrorInfo;
constexpr char kPayload[] = "orrery.v1.ErrorInfo";

// The scheduler tells more cases apart than clients are told.
std::string_view WireReason(RefusalReason reason) {
  switch (reason) {
    case RefusalReason::kInvalid:
    case RefusalReason::kContext:
      return "invalid_argument";
    case RefusalReason::kDuplicate:
      return "duplicate_request_id";
    default:
      return ReasonName(reason);
  }
}

constexpr Duration kLeastRetry = Duration::Milliseconds(50);
constexpr Duration kMostRetry = Duration::Seconds(30);
constexpr Duration kUnknownRetry = Duration::Seconds(1);

}  // namespace

absl::Status ErrorWithInfo(absl::StatusCode code, absl::string_view message, const ErrorInfo& info) {
  absl::Status status(code, message);
  status.SetPayload(kPayload, absl::Cord(info.SerializeAsString()));
  return status;
}

absl::Status FieldError(absl::string_view field, absl::string_view limit, absl::string_view actual) {
  ErrorInfo info;
  info.set_reason("invalid_argument");
  info.set_field(std::string(field));
  info.set_limit(std::string(limit));
  info.set_actual(std::string(actual));
  return ErrorWithInfo(absl::StatusCode::kInvalidArgument,
                       absl::StrCat(field, " must be ", limit, actual.empty() ? "" : ", not ", actual), info);
}

ErrorInfo ErrorInfoOf(const absl::Status& status) {
  ErrorInfo info;
  if (auto payload = status.GetPayload(kPayload)) {
    (void)info.ParseFromString(std::string(*payload));
  } else if (const auto refusal = RefusalOf(status)) {
    info.set_reason(std::string(WireReason(refusal->reason)));
    info.set_field(refusal->field);
    info.set_limit(absl::StrCat(refusal->limit));
    info.set_actual(absl::StrCat(refusal->actual));
    if (refusal->predicted_wait.ns > 0) info.set_predicted_wait_ms(refusal->predicted_wait.milliseconds());
  }
  return info;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  const ErrorInfo info = ErrorInfoOf(status);
  // The canonical codes have the same numbers in both libraries.
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const absl::string_view text = status.message();
  if (info.reason().empty()) {
    // What has no ErrorInfo was not written for clients: no internals leave the server.
    const bool internal = code == grpc::INTERNAL || code == grpc::UNKNOWN;
    return grpc::Status(code, internal ? "internal error" : std::string(text));
  }
  google::rpc::Status details;
  details.set_code(code);
  details.set_message(std::string(text));
  details.add_details()->PackFrom(info);
  return grpc::Status(code, details.message(), details.SerializeAsString());
}

std::optional<ErrorInfo> ErrorInfoOf(const grpc::Status& status) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return std::nullopt;
  for (const auto& any : details.details()) {
    ErrorInfo info;
    if (any.UnpackTo(&info)) return info;
  }
  return std::nullopt;
}

int64_t RetryMilliseconds(const absl::Status& why) {
  if (why.code() != absl::StatusCode::kResourceExhausted && why.code() != absl::StatusCode::kUnavailable) {
    return -1;
  }
  const auto refusal = RefusalOf(why);
  if (refusal && refusal->reason == RefusalReason::kKvTooSmall) return -1;  // no retry can help
  // What nobody gave a reason is not known to be about load.
  if (why.code() == absl::StatusCode::kResourceExhausted && ErrorInfoOf(why).reason().empty()) return -1;
  const bool known = refusal && refusal->predicted_wait.ns > 0;
  const Duration wait = known ? refusal->predicted_wait : kUnknownRetry;
  return std::clamp(wait, kLeastRetry, kMostRetry).ns / 1'000'000;
}

}  // namespace orrery
