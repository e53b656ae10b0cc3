#include "server/grpc/generate_reactor.h"

#include <chrono>
#include <string>
#include <utility>

#include "scheduler/base/check.h"

namespace orrery {

std::shared_ptr<GenerateReactor> GenerateReactor::Create(RequestId id, grpc::CallbackServerContext* context,
                                                         FrontLoop* front, std::atomic<int64_t>* open) {
  std::shared_ptr<GenerateReactor> reactor(new GenerateReactor(id, context, front, open));
  reactor->self_ = reactor;
  return reactor;
}

// Serialises the message into the buffer unless the one before is still in flight.
bool GenerateReactor::Take(const orrery::v1::GenerateResponse& message) {
  if (!gate_.TryEnter()) return false;
  buffer_.Clear();
  bool owned = false;
  const grpc::Status status =
      grpc::SerializationTraits<orrery::v1::GenerateResponse>::Serialize(message, &buffer_, &owned);
  ORRERY_CHECK(status.ok());
  gate_.Close();
  return true;
}

bool GenerateReactor::TryWrite(const orrery::v1::GenerateResponse& message) {
  if (!Take(message)) return false;
  StartWrite(&buffer_);
  return true;
}

bool GenerateReactor::TryWriteAndFinish(const orrery::v1::GenerateResponse& message,
                                        const grpc::Status& status) {
  if (!Take(message)) return false;
  StartWriteAndFinish(&buffer_, grpc::WriteOptions(), status);
  return true;
}

void GenerateReactor::Finish(const grpc::Status& status, int64_t retry_ms) {
  if (retry_ms >= 0) context_->AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(retry_ms));
  grpc::ServerWriteReactor<grpc::ByteBuffer>::Finish(status);
}

void GenerateReactor::Abort() {
  if (gate_.BeginAbort()) context_->TryCancel();
  gate_.EndAbort();
}

void GenerateReactor::OnWriteDone(bool) {
  if (gate_.Leave()) front_->Writable(id_);
}

void GenerateReactor::OnCancel() {
  if (!delivered_) return;
  // A client that gives up at its deadline sends a plain cancel, and its deadline is earlier than ours by the
  // time that the request was under way.
  constexpr auto kUnderWay = std::chrono::milliseconds(50);
  front_->Cancelled(id_, std::chrono::system_clock::now() + kUnderWay >= context_->deadline());
}

void GenerateReactor::OnDone() {
  gate_.Finish();
  open_->fetch_sub(1, std::memory_order_relaxed);
  if (delivered_) front_->Closed(id_);
  const auto self = std::move(self_);  // freed here, or by the front loop when it reads Closed
}

}  // namespace orrery
