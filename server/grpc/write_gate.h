// The one atomic word in which the two sides of a call meet: the front loop's thread, which writes messages
// and may abort, and gRPC's threads, which say that a message is gone and that the call is over. Neither
// waits for the other, but for the end, which lets an abort that is under way finish with the call's context.
#ifndef ORRERY_SERVER_GRPC_WRITE_GATE_H_
#define ORRERY_SERVER_GRPC_WRITE_GATE_H_

#include <atomic>
#include <cstdint>

namespace orrery {

class WriteGate {
 public:
  // The writer's side. TryEnter: may the next message be written? If not, the one before is in flight, and
  // Leave will say that somebody waits. After a yes: what the message is written with is the writer's until
  // Close.
  bool TryEnter() {
    if (!(state_.load(std::memory_order_acquire) & kBusy)) return true;
    if (state_.fetch_or(kNotify, std::memory_order_acq_rel) & kBusy) return false;
    state_.fetch_and(~kNotify, std::memory_order_relaxed);  // it has just gone: no notice will come
    return true;
  }
  // The message is about to go.
  void Close() { state_.fetch_or(kBusy, std::memory_order_release); }
  // False: the context is gone. Else it stays until EndAbort.
  bool BeginAbort() { return !(state_.fetch_or(kAborting, std::memory_order_acq_rel) & kDone); }
  void EndAbort() {
    state_.fetch_and(~kAborting, std::memory_order_release);
    state_.notify_all();
  }

  // The transport's side. The message is gone; true: the writer wants to hear of it.
  bool Leave() { return state_.fetch_and(~(kBusy | kNotify), std::memory_order_acq_rel) & kNotify; }
  // The call is over: after this the context may go.
  void Finish() {
    uint32_t before = state_.fetch_or(kDone, std::memory_order_acq_rel);
    while (before & kAborting) {
      state_.wait(before | kDone, std::memory_order_acquire);
      before = state_.load(std::memory_order_acquire);
    }
  }

 private:
  static constexpr uint32_t kBusy = 1;      // a message is in flight
  static constexpr uint32_t kNotify = 2;    // the writer wants to hear when it is gone
  static constexpr uint32_t kAborting = 4;  // the writer is using the context
  static constexpr uint32_t kDone = 8;      // the context is gone

  std::atomic<uint32_t> state_{0};
};

}  // namespace orrery

#endif  // ORRERY_SERVER_GRPC_WRITE_GATE_H_
