// orrery.v1.Inference without a model, in this process: streams as many tokens as are asked for, at once.
// What a request gets is told by its tenant:
//   ""          max_tokens tokens, three per message, then Finished
//   "refuse"    RESOURCE_EXHAUSTED with the reason queue_full
//   "exhausted" RESOURCE_EXHAUSTED without details
//   "invalid"   INVALID_ARGUMENT with the reason invalid_argument
//   "truncate"  two tokens and a good status without Finished
//   "cut"       two tokens, then UNAVAILABLE with the reason draining
//   "error"     Finished with FINISH_REASON_ERROR
//   "hang"      one token, then nothing until the client cancels
#ifndef ORRERY_TESTS_SERVER_BENCH_FAKE_INFERENCE_SERVER_H_
#define ORRERY_TESTS_SERVER_BENCH_FAKE_INFERENCE_SERVER_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "google/rpc/status.pb.h"
#include "orrery/v1/inference.grpc.pb.h"

namespace orrery::bench {

class FakeInferenceServer : public v1::Inference::CallbackService {
 public:
  FakeInferenceServer() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeInferenceServer() override { server_->Shutdown(); }

  std::string target() const { return "127.0.0.1:" + std::to_string(port_); }
  std::vector<v1::GenerateRequest> requests() {
    std::lock_guard lock(mutex_);
    return requests_;
  }
  int64_t cancelled() const { return cancelled_; }

  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest*,
                                     v1::GetModelResponse* response) override {
    response->set_model("fake");
    response->set_vocab_size(100);
    response->add_end_token_ids(99);
    response->add_special_token_ids(0);
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    for (size_t i = 0; i < request->text().size(); ++i) response->add_token_ids(1);
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext*,
                                                           const v1::GenerateRequest* request) override {
    {
      std::lock_guard lock(mutex_);
      requests_.push_back(*request);
    }
    return new Stream(this, *request);
  }

 private:
  class Stream : public grpc::ServerWriteReactor<v1::GenerateResponse> {
   public:
    Stream(FakeInferenceServer* server, const v1::GenerateRequest& request)
        : server_(server), kind_(request.tenant()), left_(request.sampling().max_tokens()) {
      prompt_tokens_ = request.has_token_ids() ? request.token_ids().ids_size() : 7;
      if (kind_ == "refuse") {
        Refuse(grpc::StatusCode::RESOURCE_EXHAUSTED, "queue_full");
      } else if (kind_ == "invalid") {
        Refuse(grpc::StatusCode::INVALID_ARGUMENT, "invalid_argument");
      } else if (kind_ == "exhausted") {
        Finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "too much"});
      } else {
        if (kind_ == "truncate" || kind_ == "cut") left_ = 2;
        if (kind_ == "hang") left_ = 1;
        response_.mutable_started()->set_prompt_tokens(prompt_tokens_);
        StartWrite(&response_);
      }
    }

    void OnWriteDone(bool ok) override {
      if (kind_ == "hang" && (!ok || left_ == 0)) return;  // OnCancel ends it
      if (finished_ || !ok) return Finish(grpc::Status::OK);
      if (left_ > 0) {
        auto* delta = response_.mutable_delta();
        delta->clear_token_ids();
        for (int k = 0; k < 3 && left_ > 0; ++k, --left_, ++given_) delta->add_token_ids(5);
        return StartWrite(&response_);
      }
      if (kind_ == "truncate") return Finish(grpc::Status::OK);
      if (kind_ == "cut") return Refuse(grpc::StatusCode::UNAVAILABLE, "draining");
      finished_ = true;
      auto* finished = response_.mutable_finished();
      finished->set_finish_reason(kind_ == "error" ? v1::FINISH_REASON_ERROR : v1::FINISH_REASON_LENGTH);
      finished->mutable_usage()->set_prompt_tokens(prompt_tokens_);
      finished->mutable_usage()->set_completion_tokens(given_);
      finished->mutable_timings()->set_ttft_ms(1.5);
      StartWrite(&response_);
    }
    void OnCancel() override {
      ++server_->cancelled_;
      if (kind_ == "hang") Finish(grpc::Status::CANCELLED);
    }
    void OnDone() override { delete this; }

   private:
    void Refuse(grpc::StatusCode code, const char* reason) {
      v1::ErrorInfo info;
      info.set_reason(reason);
      google::rpc::Status details;
      details.set_code(code);
      details.add_details()->PackFrom(info);
      Finish(grpc::Status(code, "refused", details.SerializeAsString()));
    }

    FakeInferenceServer* const server_;
    const std::string kind_;
    uint32_t left_;
    uint32_t given_ = 0;
    uint32_t prompt_tokens_ = 0;
    bool finished_ = false;
    v1::GenerateResponse response_;
  };

  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::mutex mutex_;
  std::vector<v1::GenerateRequest> requests_;
  std::atomic<int64_t> cancelled_{0};
};

}  // namespace orrery::bench

#endif  // ORRERY_TESTS_SERVER_BENCH_FAKE_INFERENCE_SERVER_H_
