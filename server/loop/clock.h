// The process's clock: monotonic, since its construction. The only place that turns a system clock into Time.
#ifndef ORRERY_SERVER_LOOP_CLOCK_H_
#define ORRERY_SERVER_LOOP_CLOCK_H_

#include <chrono>

#include "scheduler/base/time.h"

namespace orrery {

class Clock {
 public:
  using Instant = std::chrono::steady_clock::time_point;

  Time Now() const {
    return {std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start_)
                .count()};
  }
  // REQUIRES: !time.is_never()
  Instant ToInstant(Time time) const { return start_ + std::chrono::nanoseconds(time.ns); }

 private:
  Instant start_ = std::chrono::steady_clock::now();
};

}  // namespace orrery

#endif  // ORRERY_SERVER_LOOP_CLOCK_H_
