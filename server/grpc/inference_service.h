// The methods of orrery.v1.Inference. Validation and tokenisation run on gRPC's threads; everything after
// belongs to the front loop. Requests are parsed here and not by gRPC, so that malformed ones get a typed
// error too.
#ifndef ORRERY_SERVER_GRPC_INFERENCE_SERVICE_H_
#define ORRERY_SERVER_GRPC_INFERENCE_SERVICE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "orrery/v1/inference.grpc.pb.h"
#include "server/delivery/text_codec.h"
#include "server/loop/clock.h"
#include "server/loop/front_loop.h"
#include "server/request/request_limits.h"

namespace orrery {

// What a service answers from. Everything outlives it.
struct ServiceContext {
  const Clock* clock = nullptr;
  FrontLoop* front = nullptr;
  const TextCodec* codec = nullptr;
  const std::atomic<bool>* ready = nullptr;
  RequestLimits limits;
  SamplingDefaults defaults;
  orrery::v1::GetModelResponse model;
  int64_t max_message_bytes = 4 << 20;
  int64_t max_open_requests = 20'000;
  int64_t max_queue_tokens = 1'000'000;
  bool log_prompts = false;
};

namespace internal {
using InferenceBase = orrery::v1::Inference::WithRawCallbackMethod_Generate<
    orrery::v1::Inference::WithRawCallbackMethod_Tokenize<
        orrery::v1::Inference::WithRawCallbackMethod_Detokenize<
            orrery::v1::Inference::WithCallbackMethod_GetModel<
                orrery::v1::Inference::WithCallbackMethod_GetLoad<orrery::v1::Inference::Service>>>>>;
}  // namespace internal

class InferenceService final : public internal::InferenceBase {
 public:
  explicit InferenceService(ServiceContext context);

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const orrery::v1::GetModelRequest* request,
                                     orrery::v1::GetModelResponse* response) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context,
                                    const orrery::v1::GetLoadRequest* request,
                                    orrery::v1::GetLoadResponse* response) override;

  int64_t open_requests() const { return open_.load(std::memory_order_relaxed); }

 private:
  absl::Status CheckOpen() const;  // the call at hand is counted
  absl::Status CheckState() const;
  absl::Status CheckSize(const grpc::ByteBuffer& bytes) const;
  // *name is what the request is called, also where it is refused.
  absl::StatusOr<GenerationSpec> ReadRequest(const grpc::ByteBuffer& bytes, uint64_t number,
                                             std::string* name) const;
  template <typename Request, typename Response, typename Handler>
  grpc::ServerUnaryReactor* Unary(grpc::CallbackServerContext* context, const grpc::ByteBuffer& bytes,
                                  grpc::ByteBuffer* out, const Handler& handler);
  absl::Status TokenizeText(const orrery::v1::TokenizeRequest& request,
                            orrery::v1::TokenizeResponse* response) const;
  absl::Status DetokenizeIds(const orrery::v1::DetokenizeRequest& request,
                             orrery::v1::DetokenizeResponse* response) const;

  const ServiceContext context_;
  const uint64_t secret_;  // of the seeds and the ids given to requests without
  std::atomic<uint64_t> next_request_{1};
  std::atomic<int64_t> open_{0};
};

}  // namespace orrery

#endif  // ORRERY_SERVER_GRPC_INFERENCE_SERVICE_H_
