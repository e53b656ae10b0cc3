// The only queue between threads on the way of a request, and the only class there that holds a mutex: many
// senders, one receiver that takes everything at once. What lies in it is bounded by its senders: a few
// messages per request that the service has let in, or bytes that the sender counts. A sleeping receiver is
// woken once per batch, a busy one never.
#ifndef ORRERY_SERVER_LOOP_MAILBOX_H_
#define ORRERY_SERVER_LOOP_MAILBOX_H_

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <utility>
#include <vector>

#include "server/loop/clock.h"

namespace orrery {

template <typename T>
class Mailbox {
 public:
  void Push(T item) {
    bool wake = false;
    {
      std::lock_guard lock(mutex_);
      wake = Append(std::move(item));
    }
    if (wake) condition_.notify_one();
  }
  // Lies there until something else wakes the receiver.
  void PushQuietly(T item) {
    std::lock_guard lock(mutex_);
    items_.push_back(std::move(item));
    filled_.store(true, std::memory_order_release);
  }
  // Wakes the receiver although there is nothing to receive.
  void Interrupt() {
    {
      std::lock_guard lock(mutex_);
      interrupted_ = true;
    }
    condition_.notify_one();
  }

  // Receiver only. Moves all there is to *out, which must be empty; its capacity is reused for later batches.
  void Drain(std::vector<T>* out) {
    if (!filled_.load(std::memory_order_acquire)) return;
    std::lock_guard lock(mutex_);
    items_.swap(*out);
    filled_.store(false, std::memory_order_relaxed);
  }
  // Receiver only. Sleeps until there is something to receive, an Interrupt, or `until` (Never(): no end).
  void Wait(const Clock& clock, Time until) {
    std::unique_lock lock(mutex_);
    const auto awake = [&] { return !items_.empty() || interrupted_; };
    sleeping_ = !awake();
    if (until.is_never()) {
      condition_.wait(lock, awake);
    } else {
      condition_.wait_until(lock, clock.ToInstant(until), awake);
    }
    sleeping_ = interrupted_ = false;
  }

 private:
  // True when the receiver sleeps and nobody has woken it yet.
  bool Append(T&& item) {
    items_.push_back(std::move(item));
    filled_.store(true, std::memory_order_release);
    return std::exchange(sleeping_, false);
  }

  std::mutex mutex_;
  std::condition_variable condition_;
  std::vector<T> items_;
  bool sleeping_ = false, interrupted_ = false;
  std::atomic<bool> filled_{false};
};

}  // namespace orrery

#endif  // ORRERY_SERVER_LOOP_MAILBOX_H_
