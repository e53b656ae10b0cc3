// A whole server in one object: engine, scheduler, front loop, gRPC and HTTP, in the order in which they must
// start and stop. The daemon is this plus flags and signals; tests run it in their own process with other
// parts.
//
// Ready after a warm-up request has gone through every engine; not ready while a step takes longer than
// `step_timeout`, and from the beginning of a drain on.
#ifndef ORRERY_SERVER_DAEMON_SERVER_H_
#define ORRERY_SERVER_DAEMON_SERVER_H_

#include <atomic>
#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/executor.h"
#include "orrery/v1/inference.pb.h"
#include "server/config/server_config.h"
#include "server/delivery/text_codec.h"
#include "server/grpc/grpc_server.h"
#include "server/grpc/inference_service.h"
#include "server/loop/clock.h"
#include "server/loop/front_loop.h"
#include "server/loop/worker_loop.h"
#include "server/metrics/http_server.h"
#include "server/metrics/server_metrics.h"
#include "server/request/request_limits.h"

namespace orrery {

// What a server is made of besides its configuration.
struct ServerParts {
  std::vector<std::unique_ptr<Executor>> executors;  // one for each worker, with equal limits; not empty
  std::string cost = "online";  // step times as the policies believe them; ParseStepCost's form
  std::unique_ptr<const TextCodec> codec;
  SamplingDefaults defaults;
  orrery::v1::GetModelResponse model;  // sizes are filled in from the executors
  // The warm-up failed: the server will never be ready. Called once at most, on a thread of the server's.
  std::function<void()> on_warm_up_failed = [] {};
};

// Of every policy that the configuration names. INVALID_ARGUMENT: the option, and the nearest name.
absl::Status CheckPolicies(const ServerConfig& config);

class Server {
 public:
  // Listens at once and becomes ready when warm. Errors: bad policy, address in use, journal not writable.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerConfig& config, ServerParts parts);
  ~Server();

  int grpc_port() const { return grpc_.port; }
  int http_port() const { return http_ == nullptr ? 0 : http_->port(); }
  bool ready() const { return ready_.load(std::memory_order_relaxed); }
  const FrontLoop& front() const { return *front_; }
  const ServerMetrics& metrics() const { return *metrics_; }

  // Refuses new requests and waits until the running ones are over, `timeout` at most; then ends those that
  // are left. True when none had to be ended. Call once.
  bool Drain(Duration timeout);
  // Ends the workers, `timeout` at most. False: an engine's step does not return, and this object could not
  // be destroyed before it does. After Drain, once.
  bool StopWorkers(Duration timeout);

 private:
  struct Worker {
    std::unique_ptr<WorkerLoop> loop;
    uint64_t incarnation = 0;
    std::atomic<bool> warm{false};
  };

  explicit Server(const ServerConfig& config) : config_(config) {}
  absl::Status StartWorkers(ServerParts& parts);
  absl::Status StartWorker(const WorkerSpec& spec, std::unique_ptr<Executor> executor);
  absl::Status StartFront(ServerParts& parts);
  void OnReport(Worker& worker, WorkerReport report);
  void WarmUp();
  bool Warm() const;
  Duration OldestStepAge() const;
  void FailWarmUp(absl::string_view why);
  void Watch();
  void SetReady(bool ready);

  const ServerConfig config_;
  const Clock clock_;
  std::unique_ptr<const TextCodec> codec_;
  EngineLimits limits_;
  int32_t lookahead_ = 0;  // that the route policy asks for
  std::unique_ptr<ServerMetrics> metrics_;
  std::unique_ptr<FrontLoop> front_;
  std::vector<std::unique_ptr<Worker>> workers_;  // by id
  std::unique_ptr<InferenceService> service_;
  ListeningServer grpc_;
  std::unique_ptr<HttpServer> http_;

  std::function<void()> on_warm_up_failed_;
  std::atomic<bool> ready_{false}, draining_{false};
  std::mutex watch_mutex_;
  std::condition_variable watch_wake_;
  bool stop_watching_ = false;
  std::thread watch_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_DAEMON_SERVER_H_
