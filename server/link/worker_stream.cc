#include "server/link/worker_stream.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/link/wire.h"

namespace orrery {
namespace {

namespace v1 = ::orrery::v1;

constexpr int64_t kSilentHeartbeats = 5;
constexpr size_t kMostCommands = 256;           // of one message
constexpr size_t kMostMessageTokens = 1 << 20;  // of one message, but for its last submission
constexpr size_t kMostUnsent = 1 << 16;         // a worker that is so far behind is gone

size_t TokensOf(const WorkerStream::Command& command) {
  const auto* submit = std::get_if<Submit>(&command);
  return submit == nullptr ? 0 : submit->tokens->size();
}

}  // namespace

std::shared_ptr<WorkerStream> WorkerStream::Open(v1::Worker::Stub* stub, const v1::RouterHello& hello,
                                                 const Clock* clock, Events events) {
  std::shared_ptr<WorkerStream> stream(new WorkerStream(hello, clock, std::move(events)));
  stream->self_ = stream;
  stub->async()->Connect(&stream->context_, stream.get());
  stream->AddHold();  // for the writes that no reaction begins
  stream->StartWrite(&stream->out_);
  stream->StartRead(&stream->in_);
  stream->StartCall();
  return stream;
}

WorkerStream::WorkerStream(const v1::RouterHello& hello, const Clock* clock, Events events)
    : clock_(clock),
      heartbeat_{static_cast<int64_t>(hello.heartbeat_ns())},
      events_(std::move(events)),
      heard_ns_(clock->Now().ns),
      said_ns_(clock->Now().ns) {
  *out_.mutable_router() = hello;
}

void WorkerStream::Send(uint32_t rank, Command command) {
  {
    std::lock_guard lock(mutex_);
    if (!open_) return;
    if (unsent_.size() >= kMostUnsent) return context_.TryCancel();
    unsent_.push_back({rank, std::move(command)});
    if (std::exchange(writing_, true)) return;
    AddHold();
  }
  WriteNext();
  RemoveHold();
}

void WorkerStream::Beat(Time now) {
  if (now.ns - heard_ns_.load() > kSilentHeartbeats * heartbeat_.ns) return Cut();
  if (now.ns - said_ns_.load() < heartbeat_.ns) return;
  {
    std::lock_guard lock(mutex_);
    if (!open_ || std::exchange(writing_, true)) return;
    AddHold();
  }
  WriteNext();
  RemoveHold();
}

void WorkerStream::Cut() { context_.TryCancel(); }

// REQUIRES: writing_, which this call holds.
void WorkerStream::WriteNext() {
  std::vector<Addressed> batch;
  {
    std::lock_guard lock(mutex_);
    size_t count = 0, tokens = 0;
    while (count < std::min(unsent_.size(), kMostCommands) && tokens < kMostMessageTokens) {
      tokens += TokensOf(unsent_[count++].command);
    }
    const auto end = unsent_.begin() + static_cast<std::ptrdiff_t>(count);
    batch.assign(std::make_move_iterator(unsent_.begin()), std::make_move_iterator(end));
    unsent_.erase(unsent_.begin(), end);
  }
  out_.Clear();
  const Time now = clock_->Now();
  SharedTokens tokens;
  for (const Addressed& addressed : batch) {
    v1::WireCommand* wire = out_.add_commands();
    wire->set_rank(addressed.rank);
    if (const auto* submit = std::get_if<Submit>(&addressed.command)) {
      ToWire(*submit, tokens, now, wire->mutable_submit());
      tokens = submit->tokens;
    } else if (const auto* key = std::get_if<SampleKey>(&addressed.command)) {
      ToWire(*key, wire->mutable_cancel_sample());
    } else if (std::holds_alternative<TellPrefixes>(addressed.command)) {
      wire->set_tell_prefixes(true);
    } else {
      wire->set_cancel_request(Value(std::get<RequestId>(addressed.command)));
    }
  }
  said_ns_.store(now.ns);
  StartWrite(&out_);
}

void WorkerStream::OnWriteDone(bool ok) {
  {
    std::lock_guard lock(mutex_);
    writing_ = ok && open_ && !unsent_.empty();
    if (!writing_) return;
  }
  WriteNext();
}

void WorkerStream::OnReadDone(bool ok) {
  if (ok) {
    const Time now = clock_->Now();
    heard_ns_.store(now.ns);
    broken_ = Take(now);
    if (broken_.ok()) return StartRead(&in_);
    context_.TryCancel();
  }
  {
    std::lock_guard lock(mutex_);
    open_ = false;
    unsent_.clear();
  }
  RemoveHold();
}

absl::Status WorkerStream::Take(Time now) {
  if (!greeted_) {
    if (!in_.has_worker()) return absl::InvalidArgumentError("the first message was not the worker's hello");
    vocab_size_ = static_cast<int32_t>(
        std::min<uint32_t>(in_.worker().vocab_size(), std::numeric_limits<int32_t>::max()));
    if (absl::Status status = events_.hello(in_.worker()); !status.ok()) return status;
    greeted_ = true;
  }
  for (const v1::WireReport& wire : in_.reports()) {
    auto report = FromWire(wire, vocab_size_, now);
    if (!report.ok()) return report.status();
    events_.report(wire.rank(), *std::move(report));
  }
  return absl::OkStatus();
}

void WorkerStream::OnDone(const grpc::Status& status) {
  const absl::Status why(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  events_.end(broken_.ok() ? why : broken_);
  const auto self = std::move(self_);
}

}  // namespace orrery
