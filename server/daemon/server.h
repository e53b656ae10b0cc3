// A whole server in one object: the front door (front loop, gRPC and HTTP) and the workers behind it, in this
// process or in others, in the order in which they must start and stop. The daemon is this plus flags and
// signals; tests run it in their own process with other parts.
//
// Ready while at least one worker is there, those of this process all after a warm-up request and none in a
// step longer than `step_timeout`; not from the beginning of a drain on.
#ifndef ORRERY_SERVER_DAEMON_SERVER_H_
#define ORRERY_SERVER_DAEMON_SERVER_H_

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/executor.h"
#include "orrery/v1/inference.pb.h"
#include "server/config/server_config.h"
#include "server/daemon/endpoint.h"
#include "server/daemon/local_workers.h"
#include "server/delivery/text_codec.h"
#include "server/grpc/inference_service.h"
#include "server/link/membership.h"
#include "server/link/worker_directory.h"
#include "server/loop/clock.h"
#include "server/loop/front_loop.h"
#include "server/metrics/server_metrics.h"
#include "server/request/request_limits.h"

namespace orrery {

// What a server is made of besides its configuration.
struct ServerParts {
  EngineParts engine;   // without executors: the workers are in other processes
  EngineLimits limits;  // without executors: vocabulary and context; with them theirs
  std::unique_ptr<const TextCodec> codec;
  SamplingDefaults defaults;
  orrery::v1::GetModelResponse model;  // sizes are filled in from the limits
  std::string config_digest;           // of the checkpoint's config.json
  std::string hardware;                // engine and machine in words: equal ones are equally fast
};

// Of every policy that the configuration names. INVALID_ARGUMENT: the option, and the nearest name.
absl::Status CheckPolicies(const ServerConfig& config);

MetricsIdentity MetricsIdentityOf(const ServerConfig& config, const orrery::v1::GetModelResponse& model);

class Server {
 public:
  // Listens at once and becomes ready when warm. Errors: bad policy, address in use, journal not writable.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerConfig& config, ServerParts parts);
  ~Server();

  int grpc_port() const { return endpoint_.grpc_port(); }
  int http_port() const { return endpoint_.http_port(); }
  bool ready() const { return endpoint_.ready().load(std::memory_order_relaxed); }
  const FrontLoop& front() const { return *front_; }
  const ServerMetrics& metrics() const { return *metrics_; }

  // Refuses new requests and waits until the running ones are over, `timeout` at most; then ends those that
  // are left. True when none had to be ended. Call once.
  bool Drain(Duration timeout);
  // Ends the workers of this process, `timeout` at most. False: an engine's step does not return, and this
  // object could not be destroyed before it does. After Drain, once.
  bool StopWorkers(Duration timeout);

 private:
  explicit Server(const ServerConfig& config) : config_(config) {}
  absl::Status StartFront(ServerParts& parts);
  absl::Status StartWorkers(ServerParts& parts);
  absl::Status FindWorkers(const ServerParts& parts);
  std::string WhatIsMissing();

  const ServerConfig config_;
  const Clock clock_;
  std::unique_ptr<const TextCodec> codec_;
  std::unique_ptr<ServerMetrics> metrics_;
  std::unique_ptr<FrontLoop> front_;
  std::unique_ptr<LocalWorkers> workers_;       // of this process, or
  std::unique_ptr<WorkerDirectory> directory_;  // of others
  std::unique_ptr<InferenceService> service_;
  Endpoint endpoint_;
  std::atomic<bool> draining_{false};
};

}  // namespace orrery

#endif  // ORRERY_SERVER_DAEMON_SERVER_H_
