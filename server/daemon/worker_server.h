// A worker process: its workers, and the door through which a router in another process uses them.
#ifndef ORRERY_SERVER_DAEMON_WORKER_SERVER_H_
#define ORRERY_SERVER_DAEMON_WORKER_SERVER_H_

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/config/server_config.h"
#include "server/daemon/endpoint.h"
#include "server/daemon/local_workers.h"
#include "server/daemon/server.h"
#include "server/link/worker_service.h"
#include "server/loop/clock.h"
#include "server/metrics/server_metrics.h"

namespace orrery {

class WorkerServer {
 public:
  // Listens at once and takes a router when warm. Errors as Server's.
  static absl::StatusOr<std::unique_ptr<WorkerServer>> Start(const ServerConfig& config, ServerParts parts);
  ~WorkerServer();

  int grpc_port() const { return endpoint_.grpc_port(); }
  int http_port() const { return endpoint_.http_port(); }
  bool ready() const { return endpoint_.ready().load(std::memory_order_relaxed); }
  const ServerMetrics& metrics() const { return *metrics_; }

  // As Server's. The router is told, sends nothing new, and takes what is ended elsewhere.
  bool Drain(Duration timeout);
  bool StopWorkers(Duration timeout) { return workers_->StopWithin(timeout); }

 private:
  explicit WorkerServer(const ServerConfig& config) : config_(config) {}
  absl::Status StartWorkers(ServerParts& parts);
  void OnReport(WorkerReport report);
  std::string WhatIsMissing();

  const ServerConfig config_;
  const Clock clock_;
  std::unique_ptr<ServerMetrics> metrics_;
  std::unique_ptr<std::atomic<bool>[]> done_;  // each rank has said that it drains, and that it has nothing
  std::atomic<WorkerService*> reports_to_{nullptr};
  std::unique_ptr<LocalWorkers> workers_;
  std::unique_ptr<WorkerService> service_;
  Endpoint endpoint_;
  std::atomic<bool> draining_{false};
};

}  // namespace orrery

#endif  // ORRERY_SERVER_DAEMON_WORKER_SERVER_H_
