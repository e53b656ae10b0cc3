#include "server/daemon/endpoint.h"

#include <pthread.h>

#include <utility>

#include "spdlog/spdlog.h"

namespace orrery {
namespace {

constexpr auto kWatchInterval = std::chrono::milliseconds(50);

}  // namespace

absl::Status Endpoint::Open(const ServerConfig& config, const GrpcLimits& limits, grpc::Service* service,
                            std::shared_ptr<prometheus::Registry> registry,
                            std::function<std::string()> what_is_missing) {
  auto grpc = StartGrpcServer(config, limits, service);
  if (!grpc.ok()) return grpc.status();
  grpc_ = *std::move(grpc);
  if (!config.metrics_listen.empty()) {
    HttpSources sources;
    sources.registry = std::move(registry);
    sources.healthy = [] { return true; };
    sources.ready = [this] { return ready_.load(); };
    auto http = HttpServer::Start(config.metrics_listen, std::move(sources));
    if (!http.ok()) return http.status();
    http_ = *std::move(http);
  }
  what_is_missing_ = std::move(what_is_missing);
  watch_ = std::thread([this] { Watch(); });
  return absl::OkStatus();
}

void Endpoint::SetReady(const std::string& missing) {
  const bool ready = missing.empty();
  if (ready_.exchange(ready) == ready) return;
  grpc_.server->GetHealthCheckService()->SetServingStatus(ready);  // of every service
  if (ready) {
    spdlog::info("ready: grpc port {}, metrics port {}", grpc_port(), http_port());
  } else {
    spdlog::warn("not ready: {}", missing);
  }
}

void Endpoint::Watch() {
  pthread_setname_np(pthread_self(), "watch");
  std::unique_lock lock(mutex_);
  while (!stop_) {
    SetReady(what_is_missing_());
    wake_.wait_for(lock, kWatchInterval);
  }
}

void Endpoint::Poke() { wake_.notify_all(); }

void Endpoint::Shutdown(std::chrono::milliseconds grace) {
  if (grpc_.server != nullptr) grpc_.server->Shutdown(std::chrono::system_clock::now() + grace);
}

void Endpoint::Close() {
  if (watch_.joinable()) {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    watch_.join();
  }
  http_.reset();
  if (grpc_.server == nullptr) return;
  Shutdown(std::chrono::seconds(1));
  grpc_.server->Wait();
  grpc_.server.reset();
}

}  // namespace orrery
