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
  if (state_.load(std::memory_order_acquire) & kBusy) {
    if (state_.fetch_or(kNotify, std::memory_order_acq_rel) & kBusy) return false;
    state_.fetch_and(~kNotify, std::memory_order_relaxed);  // it has just gone: no notice will come
  }
  buffer_.Clear();
  bool owned = false;
  const grpc::Status status =
      grpc::SerializationTraits<orrery::v1::GenerateResponse>::Serialize(message, &buffer_, &owned);
  ORRERY_CHECK(status.ok());
  state_.fetch_or(kBusy, std::memory_order_release);
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
  if (!(state_.fetch_or(kAborting, std::memory_order_acq_rel) & kDone)) context_->TryCancel();
  state_.fetch_and(~kAborting, std::memory_order_release);
  state_.notify_all();
}

void GenerateReactor::OnWriteDone(bool) {
  const uint32_t before = state_.fetch_and(~(kBusy | kNotify), std::memory_order_acq_rel);
  if (before & kNotify) front_->Writable(id_);
}

void GenerateReactor::OnCancel() {
  if (!delivered_) return;
  // A client that gives up at its deadline sends a plain cancel, and its deadline is earlier than ours by the
  // time that the request was under way.
  constexpr auto kUnderWay = std::chrono::milliseconds(50);
  front_->Cancelled(id_, std::chrono::system_clock::now() + kUnderWay >= context_->deadline());
}

void GenerateReactor::OnDone() {
  uint32_t before = state_.fetch_or(kDone, std::memory_order_acq_rel);
  while (before & kAborting) {
    state_.wait(before | kDone, std::memory_order_acquire);
    before = state_.load(std::memory_order_acquire);
  }
  open_->fetch_sub(1, std::memory_order_relaxed);
  if (delivered_) front_->Closed(id_);
  const auto self = std::move(self_);  // freed here, or by the front loop when it reads Closed
}

}  // namespace orrery
