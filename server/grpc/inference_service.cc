#include "server/grpc/inference_service.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "google/protobuf/arena.h"
#include "scheduler/base/random.h"
#include "scheduler/types/refusal.h"
#include "server/base/errors.h"
#include "server/base/random_word.h"
#include "server/grpc/generate_reactor.h"
#include "server/request/validate.h"
#include "spdlog/spdlog.h"

namespace orrery {
namespace {

std::string Flatten(const grpc::ByteBuffer& bytes) {
  std::vector<grpc::Slice> slices;
  std::string flat;
  if (!bytes.Dump(&slices).ok()) return flat;
  flat.reserve(bytes.Length());
  for (const grpc::Slice& slice : slices) {
    flat.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return flat;
}

template <typename Message>
absl::Status Parse(const grpc::ByteBuffer& bytes, Message* message) {
  grpc::ByteBuffer copy(bytes);  // shares the slices; parsing consumes a buffer
  if (grpc::SerializationTraits<Message>::Deserialize(&copy, message).ok()) return absl::OkStatus();
  return ExplainParseFailure(Flatten(bytes), Message::descriptor());
}

// From now until the call's own deadline.
Duration RemainingOf(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return Duration::Infinite();
  const auto left = deadline - std::chrono::system_clock::now();
  return {std::max<int64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(left).count(), 0)};
}

absl::Status Unavailable(absl::string_view reason, absl::string_view message) {
  orrery::v1::ErrorInfo info;
  info.set_reason(std::string(reason));
  return ErrorWithInfo(absl::StatusCode::kUnavailable, message, info);
}

}  // namespace

InferenceService::InferenceService(ServiceContext context)
    : context_(std::move(context)), secret_(RandomWord()) {}

absl::Status InferenceService::CheckOpen() const {
  const int64_t open = open_.load(std::memory_order_relaxed);
  if (open <= context_.max_open_requests) return absl::OkStatus();
  const Duration wait{context_.front->load().predicted_wait_ns.load(std::memory_order_relaxed)};
  return ToStatus({RefusalReason::kQueueFull, "max_open_requests", context_.max_open_requests, open, wait,
                   absl::StrCat(context_.max_open_requests, " requests are open")});
}

// gRPC lets in a little more than the limit (grpc_server.cc), so that whoever is just above it is told so.
absl::Status InferenceService::CheckSize(const grpc::ByteBuffer& bytes) const {
  const auto size = static_cast<int64_t>(bytes.Length());
  if (size <= context_.max_message_bytes) return absl::OkStatus();
  return FieldError("message", absl::StrCat("at most ", context_.max_message_bytes, " bytes"),
                    absl::StrCat(size));
}

// What can be said before the request is even read: the sooner, the cheaper under overload.
absl::Status InferenceService::CheckState() const {
  const LoadBoard& load = context_.front->load();
  if (load.draining.load(std::memory_order_relaxed)) return Unavailable("draining", "the server is draining");
  if (!context_.ready->load(std::memory_order_relaxed))
    return Unavailable("not_ready", "the server is not ready");
  if (absl::Status status = CheckOpen(); !status.ok()) return status;
  const Duration wait{load.predicted_wait_ns.load(std::memory_order_relaxed)};
  const int64_t queued = load.queue_tokens.load(std::memory_order_relaxed);
  if (queued >= context_.max_queue_tokens) {
    return ToStatus({RefusalReason::kQueueFull, "max_queue_tokens", context_.max_queue_tokens, queued, wait,
                     absl::StrCat("the queue holds ", queued, " prompt tokens")});
  }
  return absl::OkStatus();
}

absl::StatusOr<GenerationSpec> InferenceService::ReadRequest(const grpc::ByteBuffer& bytes, uint64_t number,
                                                             std::string* name) const {
  *name = absl::StrFormat("%08x-%d", static_cast<uint32_t>(secret_), number);
  if (absl::Status status = CheckState(); !status.ok()) return status;
  if (absl::Status status = CheckSize(bytes); !status.ok()) return status;
  google::protobuf::Arena arena;
  auto* request = google::protobuf::Arena::CreateMessage<orrery::v1::GenerateRequest>(&arena);
  if (absl::Status status = Parse(bytes, request); !status.ok()) return status;
  const uint64_t seed = RandomStream(secret_, static_cast<uint32_t>(number)).Bits();
  auto spec = BuildSpec(*request, context_.limits, context_.defaults, *context_.codec, seed, *name);
  if (!request->request_id().empty()) *name = request->request_id();
  if (context_.log_prompts && spec.ok() && request->has_text()) {
    // One line, whatever the client wrote.
    spdlog::info("request={} text=\"{}\"", spec->request_id, absl::Utf8SafeCEscape(request->text()));
  }
  return spec;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* InferenceService::Generate(grpc::CallbackServerContext* context,
                                                                       const grpc::ByteBuffer* request) {
  const Time arrived = context_.clock->Now();
  const uint64_t number = next_request_.fetch_add(1, std::memory_order_relaxed);
  open_.fetch_add(1, std::memory_order_relaxed);
  auto reactor = GenerateReactor::Create(RequestId{number}, context, context_.front, &open_);
  std::string name;
  auto spec = ReadRequest(*request, number, &name);
  if (!spec.ok()) {
    context_.front->RefuseEarly(*reactor, name, spec.status());
    return reactor.get();
  }
  spec->deadline = std::min(spec->deadline, RemainingOf(*context));
  reactor->set_delivered();
  context_.front->Arrive(
      std::make_unique<Generation>(RequestId{number}, *std::move(spec), *context_.codec, reactor, arrived));
  return reactor.get();
}

absl::Status InferenceService::TokenizeText(const orrery::v1::TokenizeRequest& request,
                                            orrery::v1::TokenizeResponse* response) const {
  if (request.has_chat()) {
    if (absl::Status status = ValidateChat(request.chat(), context_.limits); !status.ok()) return status;
  } else if (request.text().size() > context_.limits.max_text_bytes) {
    return FieldError("text", absl::StrCat("at most ", context_.limits.max_text_bytes, " bytes"),
                      absl::StrCat(request.text().size()));
  }
  const auto tokens =
      EncodeInput(request.has_text() ? &request.text() : nullptr,
                  request.has_chat() ? &request.chat() : nullptr, !request.no_special(), *context_.codec);
  if (!tokens.ok()) return tokens.status();
  response->mutable_token_ids()->Add(tokens->begin(), tokens->end());
  return absl::OkStatus();
}

absl::Status InferenceService::DetokenizeIds(const orrery::v1::DetokenizeRequest& request,
                                             orrery::v1::DetokenizeResponse* response) const {
  return DecodeIds(request.token_ids(), !request.has_skip_special_tokens() || request.skip_special_tokens(),
                   context_.limits, *context_.codec, response->mutable_text());
}

// Among the open calls until its answer is gone: one that nobody reads keeps its memory.
class CountedCall final : public grpc::ServerUnaryReactor {
 public:
  explicit CountedCall(std::atomic<int64_t>* open) : open_(open) {
    open_->fetch_add(1, std::memory_order_relaxed);
  }
  void OnDone() override {
    open_->fetch_sub(1, std::memory_order_relaxed);
    delete this;
  }

 private:
  std::atomic<int64_t>* open_;
};

// From bytes to bytes around a function of messages.
template <typename Request, typename Response, typename Handler>
grpc::ServerUnaryReactor* InferenceService::Unary(grpc::CallbackServerContext* context,
                                                  const grpc::ByteBuffer& bytes, grpc::ByteBuffer* out,
                                                  const Handler& handler) {
  Request request;
  Response response;
  auto* reactor = new CountedCall(&open_);
  absl::Status status = CheckOpen();
  if (status.ok()) status = CheckSize(bytes);
  if (status.ok()) status = Parse(bytes, &request);
  if (status.ok()) status = handler(request, &response);
  if (!status.ok()) {
    const int64_t retry_ms = RetryMilliseconds(status);
    if (retry_ms >= 0) context->AddTrailingMetadata("grpc-retry-pushback-ms", absl::StrCat(retry_ms));
    reactor->Finish(ToGrpcStatus(status));
    return reactor;
  }
  bool owned = false;
  reactor->Finish(grpc::SerializationTraits<Response>::Serialize(response, out, &owned));
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request,
                                                     grpc::ByteBuffer* response) {
  return Unary<orrery::v1::TokenizeRequest, orrery::v1::TokenizeResponse>(
      context, *request, response, [this](const auto& in, auto* out) { return TokenizeText(in, out); });
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  return Unary<orrery::v1::DetokenizeRequest, orrery::v1::DetokenizeResponse>(
      context, *request, response, [this](const auto& in, auto* out) { return DetokenizeIds(in, out); });
}

grpc::ServerUnaryReactor* InferenceService::GetModel(grpc::CallbackServerContext* context,
                                                     const orrery::v1::GetModelRequest*,
                                                     orrery::v1::GetModelResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  *response = context_.model;
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::GetLoad(grpc::CallbackServerContext* context,
                                                    const orrery::v1::GetLoadRequest*,
                                                    orrery::v1::GetLoadResponse* response) {
  const LoadBoard& load = context_.front->load();
  const auto get = [](const std::atomic<int64_t>& value) { return value.load(std::memory_order_relaxed); };
  const int64_t total = get(load.blocks_total), available = get(load.blocks_free);
  response->set_requests_waiting(static_cast<uint32_t>(get(load.waiting)));
  response->set_requests_running(static_cast<uint32_t>(get(load.running)));
  response->set_queue_tokens(static_cast<uint64_t>(get(load.queue_tokens)));
  response->set_kv_tokens(static_cast<uint64_t>(get(load.kv_tokens)));
  response->set_blocks_total(static_cast<uint32_t>(total));
  response->set_blocks_free(static_cast<uint32_t>(available));
  if (total > 0)
    response->set_kv_cache_used_ratio(static_cast<double>(total - available) / static_cast<double>(total));
  response->set_ready(context_.ready->load(std::memory_order_relaxed));
  response->set_draining(load.draining.load(std::memory_order_relaxed));
  response->set_open_streams(static_cast<uint32_t>(open_requests()));
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace orrery
