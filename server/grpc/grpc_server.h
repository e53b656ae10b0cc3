// A gRPC server with our limits: message and metadata size, streams per connection, keepalive, connection
// age, quotas; health checking and reflection included.
#ifndef ORRERY_SERVER_GRPC_GRPC_SERVER_H_
#define ORRERY_SERVER_GRPC_GRPC_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/grpcpp.h"
#include "server/config/server_config.h"

namespace orrery {

struct ListeningServer {
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};

struct GrpcLimits {
  const char* service = "";  // full name, known to health checks from the start
  int max_receive_bytes = 0;
};
// Of orrery.v1.Inference. What gRPC itself refuses gets no ErrorInfo and is not counted: a quarter above the
// limit the service looks.
GrpcLimits ClientLimits(const ServerConfig& config);
// Of orrery.v1.Worker.
GrpcLimits RouterLimits();

// An address that cannot be bound: INVALID_ARGUMENT, naming it. `service` outlives the server.
absl::StatusOr<ListeningServer> StartGrpcServer(const ServerConfig& config, const GrpcLimits& limits,
                                                grpc::Service* service);

}  // namespace orrery

#endif  // ORRERY_SERVER_GRPC_GRPC_SERVER_H_
