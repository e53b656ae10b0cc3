// From a configuration to the parts of a server: engine, tokenizer, default sampling, description of the
// model.
#ifndef ORRERY_SERVER_DAEMON_LOAD_PARTS_H_
#define ORRERY_SERVER_DAEMON_LOAD_PARTS_H_

#include <string>

#include "absl/status/statusor.h"
#include "server/config/server_config.h"
#include "server/daemon/server.h"

namespace orrery {

// Errors are one line that says what and where: a bad configuration or model.
absl::StatusOr<ServerParts> LoadParts(const ServerConfig& config);

// What --dry-run prints: types, limits and memory, before anything is loaded.
absl::StatusOr<std::string> DescribePlan(const ServerConfig& config);

}  // namespace orrery

#endif  // ORRERY_SERVER_DAEMON_LOAD_PARTS_H_
