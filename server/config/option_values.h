// Text to value and back for the types an option can have. Errors say what was expected, not where.
#ifndef ORRERY_SERVER_CONFIG_OPTION_VALUES_H_
#define ORRERY_SERVER_CONFIG_OPTION_VALUES_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scheduler/base/time.h"
#include "server/config/server_config.h"

namespace orrery {

absl::StatusOr<int64_t> ParseInteger(absl::string_view text);
absl::StatusOr<bool> ParseSwitch(absl::string_view text);        // on off true false yes no 1 0
absl::StatusOr<ByteSize> ParseByteSize(absl::string_view text);  // 4096, 64K, 512MiB, 2G (powers of 1024)
absl::StatusOr<Duration> ParseDuration(absl::string_view text);  // 30 (seconds), 200ms, 1.5s, 5m, 2h, inf

std::string FormatByteSize(ByteSize size);
std::string FormatDuration(Duration duration);

}  // namespace orrery

#endif  // ORRERY_SERVER_CONFIG_OPTION_VALUES_H_
