#include "scheduler/base/hash.h"
#include "server/bench/grpc_transport.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/client_channel.h"
#include "server/base/errors.h"

namespace orrery::bench {
namespace {

// Below the 100 streams per connection that HTTP/2 servers are advised to allow.
constexpr int64_t kStreamsPerConnection = 96;
constexpr size_t kMaxConnections = 128;
constexpr absl::Duration kTokenizeTimeout = absl::Seconds(30);

// Refusals that are about load, by the reason of their ErrorInfo.
constexpr std::array<absl::string_view, 8> kLoadReasons = {"queue_full",   "predicted_wait", "shed",
                                                           "kv_too_small", "draining",       "not_ready",
                                                           "no_worker",    "tenant_limit"};

const char* CodeName(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::CANCELLED:
      return "cancelled";
    case grpc::StatusCode::INVALID_ARGUMENT:
      return "invalid_argument";
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return "deadline";
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return "resource_exhausted";
    case grpc::StatusCode::UNIMPLEMENTED:
      return "unimplemented";
    case grpc::StatusCode::UNAVAILABLE:
      return "unavailable";
    case grpc::StatusCode::INTERNAL:
      return "internal";
    default:
      return "other";
  }
}

std::string FinishReasonName(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_CANCELLED:
      return "cancelled";
    case v1::FINISH_REASON_DEADLINE:
      return "deadline";
    case v1::FINISH_REASON_ERROR:
      return "error";
    default:
      return "";
  }
}

void FillRequest(const OutgoingRequest& in, v1::GenerateRequest* out) {
  out->set_request_id(in.request_id);
  switch (in.kind) {
    case PromptKind::kTokens:
      out->mutable_token_ids()->mutable_ids()->Add(in.token_ids.begin(), in.token_ids.end());
      break;
    case PromptKind::kText:
      out->set_text(in.text);
      break;
    case PromptKind::kChat: {
      v1::ChatMessage* message = out->mutable_chat()->add_messages();
      message->set_role("user");
      message->set_content(in.text);
      break;
    }
  }
  v1::Sampling* sampling = out->mutable_sampling();
  if (in.max_tokens > 0) sampling->set_max_tokens(in.max_tokens);
  sampling->set_ignore_eos(in.ignore_eos);
  if (in.temperature) sampling->set_temperature(static_cast<float>(*in.temperature));
  sampling->set_seed(in.seed);
  if (in.slo.ttft_ms) out->mutable_slo()->set_ttft_ms(*in.slo.ttft_ms);
  if (in.slo.tpot_ms) out->mutable_slo()->set_tpot_ms(*in.slo.tpot_ms);
  if (!in.slo_class.empty()) out->mutable_slo()->set_class_(in.slo_class);
  out->set_priority(in.priority);
  out->set_tenant(in.tenant);
}

}  // namespace

// One stream. It has one operation in the queue at a time (start, read, read, ..., finish), so the call
// itself is the tag and no two threads are ever in it but for Stop().
class GrpcTransport::Call {
 public:
  Call(Connection* connection, const OutgoingRequest& request, StreamEvents* events)
      : connection_(connection), events_(events) {
    FillRequest(request, &request_);
  }

  void Start(grpc::CompletionQueue* queue, absl::Duration timeout) {
    limited_ = timeout < absl::InfiniteDuration();
    if (limited_) context_.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    reader_ = connection_->stub->PrepareAsyncGenerate(&context_, request_, queue);
    reader_->StartCall(this);
  }

  // The run is over: what is open now counts as not finished. Any thread, after Start().
  void Stop() {
    stopped_.store(true, std::memory_order_relaxed);
    context_.TryCancel();
  }

  // The operation is done; false when it was the last one and `events` has heard the end.
  bool Proceed(bool ok) {
    if (finishing_) {
      Conclude();
      events_->OnEnd(end_);
      return false;
    }
    if (started_ && ok) TakeResponse();
    started_ = true;
    if (ok) {
      reader_->Read(&response_, this);
    } else {
      finishing_ = true;
      reader_->Finish(&status_, this);
    }
    return true;
  }

  Connection* connection() const { return connection_; }

 private:
  void TakeResponse() {
    switch (response_.event_case()) {
      case v1::GenerateResponse::kStarted:
        end_.prompt_tokens = static_cast<int32_t>(response_.started().prompt_tokens());
        break;
      case v1::GenerateResponse::kDelta:
        if (const int count = response_.delta().token_ids_size(); count > 0) {
          has_token_ = true;
          for (const uint32_t id : response_.delta().token_ids()) digest_.Add(id);
          if (!events_->OnTokens(count)) context_.TryCancel();
        }
        break;
      case v1::GenerateResponse::kFinished:
        TakeFinished(response_.finished());
        break;
      default:
        break;
    }
  }

  void TakeFinished(const v1::Finished& finished) {
    finished_ = true;
    end_.finish_reason = FinishReasonName(finished.finish_reason());
    end_.message = finished.error();
    end_.prompt_tokens = static_cast<int32_t>(finished.usage().prompt_tokens());
    end_.output_tokens = static_cast<int32_t>(finished.usage().completion_tokens());
    end_.cached_tokens = static_cast<int32_t>(finished.usage().cached_tokens());
    end_.attempts = finished.attempts_size();
    end_.output_digest = digest_.Finish().low;
    const v1::Timings& timings = finished.timings();
    end_.timings =
        ServerTimings{timings.queue_ms(), timings.prefill_ms(), timings.decode_ms(), timings.ttft_ms()};
  }

  void Conclude() {
    const grpc::Status& status = status_;
    if (status.ok() && finished_ && (end_.finish_reason == "stop" || end_.finish_reason == "length")) {
      end_.outcome = Outcome::kCompleted;
      return;
    }
    if (stopped_.load(std::memory_order_relaxed)) {
      end_.outcome = Outcome::kUnfinished;
      return;
    }
    end_.outcome = Outcome::kFailed;
    if (status.ok()) {
      end_.reason = !finished_ ? "truncated" : end_.finish_reason.empty() ? "other" : end_.finish_reason;
      return;
    }
    end_.message = status.error_message();
    // Ours: requests are sent without a deadline of their own.
    if (limited_ && status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
      end_.reason = "timeout";
      return;
    }
    const auto info = ErrorInfoOf(status);
    end_.reason = info ? info->reason() : "";
    // What was cut off in the middle is no refusal, whatever the reason.
    if (!has_token_ &&
        std::find(kLoadReasons.begin(), kLoadReasons.end(), end_.reason) != kLoadReasons.end()) {
      end_.outcome = Outcome::kRejected;
    } else if (end_.reason.empty()) {
      end_.reason = CodeName(status.error_code());
    }
  }

  Connection* const connection_;
  StreamEvents* const events_;
  grpc::ClientContext context_;
  v1::GenerateRequest request_;
  v1::GenerateResponse response_;
  std::unique_ptr<grpc::ClientAsyncReader<v1::GenerateResponse>> reader_;
  grpc::Status status_;
  bool limited_ = false;  // by a timeout
  StreamEnd end_;
  SipHash13 digest_{0, 0};  // of the output ids
  bool started_ = false;
  bool finishing_ = false;
  bool has_token_ = false;
  bool finished_ = false;  // the server's Finished message came
  std::atomic<bool> stopped_{false};
};

GrpcTransport::GrpcTransport(std::string target) : target_(std::move(target)), reader_([this] { Poll(); }) {}

GrpcTransport::~GrpcTransport() {
  CancelAll();
  {
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [this] { return calls_.empty(); });
  }
  queue_.Shutdown();
  reader_.join();
}

absl::StatusOr<std::unique_ptr<GrpcTransport>> GrpcTransport::Connect(const std::string& target,
                                                                      absl::Duration timeout) {
  std::unique_ptr<GrpcTransport> transport(new GrpcTransport(target));
  Connection* connection = transport->AddConnection();
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  context.set_wait_for_ready(true);
  const grpc::Status status = connection->stub->GetModel(&context, v1::GetModelRequest(), &transport->model_);
  if (!status.ok()) {
    return absl::UnavailableError(absl::StrCat("target: no server answers at ", target, " within ",
                                               absl::FormatDuration(timeout), " (", status.error_message(),
                                               ")"));
  }
  return transport;
}

GrpcTransport::Connection* GrpcTransport::AddConnection() {
  auto connection = std::make_unique<Connection>();
  connection->stub = v1::Inference::NewStub(NewClientChannel(target_));
  connections_.push_back(std::move(connection));
  return connections_.back().get();
}

GrpcTransport::Connection* GrpcTransport::PickConnection() {
  Connection* best = nullptr;
  for (const auto& one : connections_) {
    if (one->open < kStreamsPerConnection) return one.get();
    if (best == nullptr || one->open < best->open) best = one.get();
  }
  return connections_.size() < kMaxConnections ? AddConnection() : best;
}

absl::StatusOr<int32_t> GrpcTransport::CountTokens(const std::string& text) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kTokenizeTimeout));
  v1::TokenizeRequest request;
  v1::TokenizeResponse response;
  request.set_text(text);
  request.set_no_special(true);
  const grpc::Status status = connections_.front()->stub->Tokenize(&context, request, &response);
  if (!status.ok()) {
    // The canonical codes have the same numbers in both libraries.
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                        absl::StrCat("Tokenize: ", status.error_message()));
  }
  return response.token_ids_size();
}

void GrpcTransport::Send(const OutgoingRequest& request, StreamEvents* events) {
  Call* call;
  {
    std::lock_guard lock(mutex_);
    Connection* connection = PickConnection();
    ++connection->open;
    call = new Call(connection, request, events);
    calls_.insert(call);
  }
  call->Start(&queue_, timeout_);
}

void GrpcTransport::CancelAll() {
  std::lock_guard lock(mutex_);
  for (Call* call : calls_) call->Stop();
}

void GrpcTransport::Poll() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
    Call* call = static_cast<Call*>(tag);
    if (!call->Proceed(ok)) Retire(call);
  }
}

void GrpcTransport::Retire(Call* call) {
  std::lock_guard lock(mutex_);
  --call->connection()->open;
  calls_.erase(call);
  delete call;
  if (calls_.empty()) idle_.notify_all();
}

}  // namespace orrery::bench
