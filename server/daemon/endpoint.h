// The ports of a process and its readiness: gRPC with health checking, HTTP with metrics, /health and /ready.
// Ready while nothing stands against it, which a thread asks for twenty times a second.
#ifndef ORRERY_SERVER_DAEMON_ENDPOINT_H_
#define ORRERY_SERVER_DAEMON_ENDPOINT_H_

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "grpcpp/grpcpp.h"
#include "prometheus/registry.h"
#include "server/config/server_config.h"
#include "server/grpc/grpc_server.h"
#include "server/metrics/http_server.h"

namespace orrery {

class Endpoint {
 public:
  ~Endpoint() { Close(); }

  // Listens. `what_is_missing` says in a word or two what the process waits for before it is ready, nothing
  // when it is; on a thread of this object's. Errors: an address that cannot be bound. Once.
  absl::Status Open(const ServerConfig& config, const GrpcLimits& limits, grpc::Service* service,
                    std::shared_ptr<prometheus::Registry> registry,
                    std::function<std::string()> what_is_missing);
  // Asks now.
  void Poke();
  // Refuses new calls, and cuts the others off after `grace`.
  void Shutdown(std::chrono::milliseconds grace);
  // Shuts down and ends the threads. No call runs afterwards.
  void Close();

  int grpc_port() const { return grpc_.port; }
  int http_port() const { return http_ == nullptr ? 0 : http_->port(); }
  const std::atomic<bool>& ready() const { return ready_; }

 private:
  void SetReady(const std::string& missing);
  void Watch();

  ListeningServer grpc_;
  std::unique_ptr<HttpServer> http_;
  std::function<std::string()> what_is_missing_;
  std::atomic<bool> ready_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::thread watch_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_DAEMON_ENDPOINT_H_
