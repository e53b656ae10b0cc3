// A gRPC call of any method with bytes for messages, so that a test can say what no generated stub would.
#ifndef ORRERY_TESTS_SERVER_RAW_CALL_H_
#define ORRERY_TESTS_SERVER_RAW_CALL_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"

namespace orrery::testing {

// On a connection of its own. Every method blocks until it is done.
class RawCall {
 public:
  RawCall(int port, const std::string& method)
      : stub_(grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials(),
                                        OwnConnection())),
        stream_(stub_.PrepareCall(&context_, method, &queue_)) {
    stream_->StartCall(this);
    Done();
  }
  ~RawCall() {
    context_.TryCancel();
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  bool Write(const std::string& message) {
    const grpc::Slice slice(message);
    stream_->Write(grpc::ByteBuffer(&slice, 1), this);
    return Done();
  }
  void WritesDone() {
    stream_->WritesDone(this);
    Done();
  }
  // The next message; nothing at the end.
  std::optional<std::string> Read() {
    grpc::ByteBuffer bytes;
    stream_->Read(&bytes, this);
    if (!Done()) return std::nullopt;
    std::vector<grpc::Slice> slices;
    if (!bytes.Dump(&slices).ok()) return std::nullopt;
    std::string message;
    for (const grpc::Slice& slice : slices) {
      message.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    return message;
  }
  // REQUIRES: Read has said that it is the end.
  grpc::Status Finish() {
    grpc::Status status;
    stream_->Finish(&status, this);
    Done();
    return status;
  }

  // One request, and the status the call ends with; what it answers before goes to *answer.
  static grpc::Status Unary(int port, const std::string& method, const std::string& request,
                            std::string* answer = nullptr) {
    RawCall call(port, method);
    if (call.Write(request)) call.WritesDone();
    while (const auto message = call.Read()) {
      if (answer != nullptr) answer->append(*message);
    }
    return call.Finish();
  }

 private:
  static grpc::ChannelArguments OwnConnection() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return arguments;
  }
  bool Done() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
};

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_SERVER_RAW_CALL_H_
