// A small HTTP server for three GETs: /metrics (Prometheus text), /health (the process lives) and /ready (it
// takes requests). Few threads, short requests, time limits: made for probes and scrapers.
#ifndef ORRERY_SERVER_METRICS_HTTP_SERVER_H_
#define ORRERY_SERVER_METRICS_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "prometheus/registry.h"

struct mg_context;

namespace orrery {

struct HttpSources {
  std::shared_ptr<prometheus::Registry> registry;
  std::function<bool()> healthy, ready;
};

class HttpServer {
 public:
  // INVALID_ARGUMENT when the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& address, HttpSources sources);
  ~HttpServer();
  int port() const;

 private:
  explicit HttpServer(HttpSources sources) : sources_(std::move(sources)) {}
  HttpSources sources_;
  mg_context* context_ = nullptr;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_METRICS_HTTP_SERVER_H_
