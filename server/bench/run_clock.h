// Time of a load test, injected so that tests run in virtual time.
#ifndef ORRERY_SERVER_BENCH_RUN_CLOCK_H_
#define ORRERY_SERVER_BENCH_RUN_CLOCK_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "scheduler/base/time.h"

namespace orrery::bench {

class RunClock {
 public:
  virtual ~RunClock() = default;
  // Since the start of the run. Any thread.
  virtual Time Now() const = 0;
  // Returns at `deadline`, or earlier once Wake() was called after the last return. One thread.
  virtual void WaitUntil(Time deadline) = 0;
  // Any thread.
  virtual void Wake() = 0;
};

// The machine's monotonic clock; the run starts when it is made.
class SteadyRunClock : public RunClock {
 public:
  Time Now() const override {
    const auto elapsed = std::chrono::steady_clock::now() - start_;
    return Time{std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count()};
  }
  void WaitUntil(Time deadline) override {
    std::unique_lock lock(mutex_);
    wake_.wait_until(lock, start_ + std::chrono::nanoseconds(deadline.ns), [this] { return woken_; });
    woken_ = false;
  }
  void Wake() override {
    {
      std::lock_guard lock(mutex_);
      woken_ = true;
    }
    wake_.notify_one();
  }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::mutex mutex_;
  std::condition_variable wake_;
  bool woken_ = false;
};

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_RUN_CLOCK_H_
