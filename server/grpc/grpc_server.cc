#include "server/grpc/grpc_server.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "server/link/wire.h"

namespace orrery {
namespace {

int Milliseconds(Duration duration) {
  constexpr int64_t kMost = 2'000'000'000;
  return static_cast<int>(std::min(duration.ns / 1'000'000, kMost));
}

void SetLimits(const ServerConfig& config, const GrpcLimits& limits, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(limits.max_receive_bytes);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, static_cast<int>(config.max_metadata_bytes.bytes));
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                              static_cast<int>(config.max_streams_per_connection));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(config.keepalive_interval));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(config.keepalive_timeout));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // Clients may ping, but not flood.
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 5);
  // Two daemons on one port would each get a part of the clients.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  if (!config.max_connection_age.is_infinite()) {
    builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, Milliseconds(config.max_connection_age));
  }
  if (config.grpc_memory.bytes > 0 || config.grpc_threads > 0) {
    grpc::ResourceQuota quota("orreryd");
    if (config.grpc_memory.bytes > 0) quota.Resize(static_cast<size_t>(config.grpc_memory.bytes));
    if (config.grpc_threads > 0) quota.SetMaxThreads(static_cast<int>(config.grpc_threads));
    builder->SetResourceQuota(quota);
  }
}

}  // namespace

GrpcLimits ClientLimits(const ServerConfig& config) {
  const int64_t bytes = config.max_message_bytes.bytes;
  return {.service = "orrery.v1.Inference", .max_receive_bytes = static_cast<int>(bytes + bytes / 4)};
}

GrpcLimits RouterLimits() { return {.service = "orrery.v1.Worker", .max_receive_bytes = kMostWireBytes}; }

absl::StatusOr<ListeningServer> StartGrpcServer(const ServerConfig& config, const GrpcLimits& limits,
                                                grpc::Service* service) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  ListeningServer listening;
  grpc::ServerBuilder builder;
  SetLimits(config, limits, &builder);
  builder.AddListeningPort(config.listen, grpc::InsecureServerCredentials(), &listening.port);
  builder.RegisterService(service);
  listening.server = builder.BuildAndStart();
  if (listening.server == nullptr || listening.port == 0) {
    return absl::InvalidArgumentError(absl::StrCat("--listen: cannot listen on '", config.listen, "'"));
  }
  grpc::HealthCheckServiceInterface* health = listening.server->GetHealthCheckService();
  health->SetServingStatus(limits.service, false);
  health->SetServingStatus(false);
  return listening;
}

}  // namespace orrery
