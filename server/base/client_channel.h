// How our own clients connect: answers of any size, and a peer that is gone without a word is noticed.
#ifndef ORRERY_SERVER_BASE_CLIENT_CHANNEL_H_
#define ORRERY_SERVER_BASE_CLIENT_CHANNEL_H_

#include <memory>
#include <string>

#include "grpcpp/grpcpp.h"

namespace orrery {

inline grpc::ChannelArguments ClientChannelArguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  // Channels of equal arguments share one connection unless told otherwise.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // a queue may be long: as many as it takes
  return arguments;
}

inline std::shared_ptr<grpc::Channel> NewClientChannel(const std::string& target) {
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), ClientChannelArguments());
}

}  // namespace orrery

#endif  // ORRERY_SERVER_BASE_CLIENT_CHANNEL_H_
