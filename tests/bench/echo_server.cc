// The least that a streaming server can be, from the same stubs: what loopback gRPC costs without a router, a
// scheduler and an engine behind it, and what one hop more costs. loopback.py compares.
//
//   echo_server PORT            answers Generate with max_tokens messages of one token each, and GetModel
//   echo_server PORT ADDRESS    passes both on to the echo server there, message by message
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "grpcpp/grpcpp.h"
#include "orrery/v1/inference.grpc.pb.h"

namespace orrery {
namespace {

namespace v1 = ::orrery::v1;

constexpr uint32_t kVocab = 512;

class EchoStream final : public grpc::ServerWriteReactor<v1::GenerateResponse> {
 public:
  explicit EchoStream(const v1::GenerateRequest& request)
      : num_tokens_(request.sampling().max_tokens()),
        prompt_tokens_(static_cast<uint32_t>(request.token_ids().ids_size())) {
    message_.mutable_started()->set_request_id(request.request_id());
    message_.mutable_started()->set_prompt_tokens(prompt_tokens_);
    StartWrite(&message_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::CANCELLED);
    message_.Clear();
    if (sent_ < num_tokens_) {
      message_.mutable_delta()->add_token_ids(sent_++ % kVocab);
      message_.mutable_delta()->set_text("x");
      return StartWrite(&message_);
    }
    v1::Finished* finished = message_.mutable_finished();
    finished->set_finish_reason(v1::FINISH_REASON_LENGTH);
    finished->mutable_usage()->set_prompt_tokens(prompt_tokens_);
    finished->mutable_usage()->set_completion_tokens(num_tokens_);
    StartWriteAndFinish(&message_, grpc::WriteOptions(), grpc::Status::OK);
  }
  void OnDone() override { delete this; }

 private:
  const uint32_t num_tokens_, prompt_tokens_;
  uint32_t sent_ = 0;
  v1::GenerateResponse message_;
};

class EchoService final : public v1::Inference::CallbackService {
  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext*,
                                                           const v1::GenerateRequest* request) override {
    return new EchoStream(*request);
  }
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest*,
                                     v1::GetModelResponse* response) override {
    response->set_model("echo");
    response->set_vocab_size(kVocab);
    response->set_max_context(1 << 20);
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

// Both ends of a stream that is passed on; one message is under way at a time.
class RelayStream final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                          public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  RelayStream(v1::Inference::Stub* stub, const v1::GenerateRequest& request) : request_(request) {
    stub->async()->Generate(&context_, &request_, this);
    AddHold();  // reads are started from the other end's reactions
    StartRead(&message_);
    StartCall();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return RemoveHold();
    StartWrite(&message_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) context_.TryCancel();
    StartRead(&message_);
  }
  void OnDone(const grpc::Status& status) override { Finish(status); }
  void OnDone() override { delete this; }

 private:
  grpc::ClientContext context_;
  const v1::GenerateRequest request_;
  v1::GenerateResponse message_;
};

class RelayService final : public v1::Inference::CallbackService {
 public:
  explicit RelayService(const std::string& address)
      : stub_(v1::Inference::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))) {}
  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext*,
                                                           const v1::GenerateRequest* request) override {
    return new RelayStream(stub_.get(), *request);
  }
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override {
    grpc::ClientContext onward;
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(stub_->GetModel(&onward, *request, response));
    return reactor;
  }

 private:
  const std::unique_ptr<v1::Inference::Stub> stub_;
};

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) return std::fprintf(stderr, "usage: echo_server PORT [ADDRESS]\n"), 2;
  orrery::EchoService echo;
  std::unique_ptr<orrery::RelayService> relay;
  if (argc == 3) relay = std::make_unique<orrery::RelayService>(argv[2]);
  grpc::Service* service = relay != nullptr ? static_cast<grpc::Service*>(relay.get()) : &echo;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(std::string("127.0.0.1:") + argv[1], grpc::InsecureServerCredentials());
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 20'000);
  builder.RegisterService(service);
  const auto server = builder.BuildAndStart();
  if (server == nullptr) return std::fprintf(stderr, "cannot listen on port %s\n", argv[1]), 1;
  server->Wait();
}
