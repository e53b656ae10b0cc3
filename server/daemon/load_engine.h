// From a configuration to the engine's part of a server: which backend `--backend` means on this machine, its
// options and its executors.
#ifndef ORRERY_SERVER_DAEMON_LOAD_ENGINE_H_
#define ORRERY_SERVER_DAEMON_LOAD_ENGINE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/checkpoint/model_config.h"
#include "server/config/server_config.h"
#include "server/daemon/server.h"

namespace orrery {

// Fills in parts->engine, limits, hardware and what the model's description says of the engine. Errors are
// one line that says what and where.
absl::Status LoadEngine(const ServerConfig& config, const ModelConfig& model, ServerParts* parts);

// What --dry-run prints: backend, types, limits and memory, before anything is loaded.
absl::StatusOr<std::string> DescribeEngine(const ServerConfig& config);

}  // namespace orrery

#endif  // ORRERY_SERVER_DAEMON_LOAD_ENGINE_H_
