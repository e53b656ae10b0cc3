// Errors as clients see them: a gRPC code, one line for people, and orrery.v1.ErrorInfo for programs, wrapped
// as google.rpc.Status in `grpc-status-details-bin`. Inside the server an ErrorInfo travels as a payload of
// absl::Status; a Refusal of the cores is translated here.
#ifndef ORRERY_SERVER_BASE_ERRORS_H_
#define ORRERY_SERVER_BASE_ERRORS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grpcpp/support/status.h"
#include "orrery/v1/inference.pb.h"

namespace orrery {

// "FIELD must be LIMIT, not ACTUAL": INVALID_ARGUMENT.
absl::Status FieldError(absl::string_view field, absl::string_view limit, absl::string_view actual);
// Any code and reason.
absl::Status ErrorWithInfo(absl::StatusCode code, absl::string_view message,
                           const orrery::v1::ErrorInfo& info);

// What ErrorInfo a status carries, from its own payload or from a Refusal; empty fields when it carries none.
orrery::v1::ErrorInfo ErrorInfoOf(const absl::Status& status);
// REQUIRES: !status.ok(). Internal errors keep their text only when they carry an ErrorInfo.
grpc::Status ToGrpcStatus(const absl::Status& status);
// What a refused client is told to wait (`grpc-retry-pushback-ms`); -1: no retry can help.
int64_t RetryMilliseconds(const absl::Status& why);
// The ErrorInfo in a status that a server sent; nothing when there is none.
std::optional<orrery::v1::ErrorInfo> ErrorInfoOf(const grpc::Status& status);

}  // namespace orrery

#endif  // ORRERY_SERVER_BASE_ERRORS_H_
