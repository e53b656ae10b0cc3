// What `orrery` says when something went wrong, the same for every subcommand: an exit code, a line on
// standard error, or with --json one document {"error": {...}} on standard output.
#ifndef ORRERY_SERVER_CLI_OUTPUT_H_
#define ORRERY_SERVER_CLI_OUTPUT_H_

#include <string>

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace orrery::cli {

enum ExitCode : int {
  kDone = 0,
  kInternal = 1,
  kUsage = 2,
  kInfeasible = 3,
  kTooLarge = 4,
  kUnreachable = 5,
  kRefused = 6,
  kReplayDiffers = 7,
};

// An error of our own: bad flags, files, input.
int Fail(const absl::Status& status, bool json);
// An error of a call. Without an ErrorInfo, UNAVAILABLE means that nobody is there.
int Fail(const grpc::Status& status, const std::string& target, bool json);

// The whole of a file of at most `limit` bytes; "-" is standard input.
absl::Status ReadFile(const std::string& path, size_t limit, std::string* text);

}  // namespace orrery::cli

#endif  // ORRERY_SERVER_CLI_OUTPUT_H_
