#include "server/metrics/http_server.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "civetweb.h"
#include "prometheus/text_serializer.h"

namespace orrery {
namespace {

int Reply(mg_connection* connection, int code, const char* reason, const char* type,
          const std::string& body) {
  mg_printf(connection,
            "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", code,
            reason, type, body.size());
  // The length is that of a GET; a HEAD gets the headers alone.
  const absl::string_view method = mg_get_request_info(connection)->request_method;
  if (method != "HEAD") mg_write(connection, body.data(), body.size());
  return code;
}

int ReplyText(mg_connection* connection, bool good, const char* yes, const char* no) {
  return good ? Reply(connection, 200, "OK", "text/plain", absl::StrCat(yes, "\n"))
              : Reply(connection, 503, "Service Unavailable", "text/plain", absl::StrCat(no, "\n"));
}

int Handle(mg_connection* connection, void* data) {
  const auto* sources = static_cast<const HttpSources*>(data);
  const mg_request_info* request = mg_get_request_info(connection);
  const absl::string_view method = request->request_method, path = request->local_uri;
  if (method != "GET" && method != "HEAD") {
    return Reply(connection, 405, "Method Not Allowed", "text/plain", "GET only\n");
  }
  if (path == "/metrics") {
    return Reply(connection, 200, "OK", "text/plain; version=0.0.4; charset=utf-8",
                 prometheus::TextSerializer().Serialize(sources->registry->Collect()));
  }
  if (path == "/health") return ReplyText(connection, sources->healthy(), "ok", "not ok");
  if (path == "/ready") return ReplyText(connection, sources->ready(), "ready", "not ready");
  return Reply(connection, 404, "Not Found", "text/plain", "/metrics, /health, /ready\n");
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& address,
                                                              HttpSources sources) {
  // "HOST:PORT"; the library wants an IP address.
  const std::string listen =
      absl::StartsWith(address, "localhost:") ? absl::StrCat("127.0.0.1", address.substr(9)) : address;
  std::unique_ptr<HttpServer> server(new HttpServer(std::move(sources)));
  const char* options[] = {"listening_ports",
                           listen.c_str(),
                           "num_threads",
                           "3",
                           "request_timeout_ms",
                           "5000",
                           "max_request_size",
                           "8192",
                           "connection_queue",
                           "64",
                           "enable_keep_alive",
                           "no",
                           nullptr};
  static const mg_callbacks kCallbacks{};
  server->context_ = mg_start(&kCallbacks, nullptr, options);
  if (server->context_ == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("--metrics-listen: cannot listen on '", address, "'"));
  }
  mg_set_request_handler(server->context_, "/", &Handle, &server->sources_);
  return server;
}

HttpServer::~HttpServer() {
  if (context_ != nullptr) mg_stop(context_);
}

int HttpServer::port() const {
  mg_server_port ports[1] = {};
  return mg_get_server_ports(context_, 1, ports) == 1 ? ports[0].port : 0;
}

}  // namespace orrery
