// How fast a queue is served, learnt from what was served: an exponentially weighted rate over busy time.
#ifndef ORRERY_ROUTER_SERVICE_RATE_H_
#define ORRERY_ROUTER_SERVICE_RATE_H_

#include <cmath>
#include <cstdint>

#include "scheduler/base/time.h"

namespace orrery {

class ServiceRate {
 public:
  // `memory`: the time after which a sample counts 1/e.
  explicit ServiceRate(Duration memory) : memory_s_(memory.seconds()) {}

  // Until `now`, since the last call, this much was served; `busy` whether anything waited or ran.
  void Add(int64_t tokens, bool busy, Time now) {
    const double dt = started_ ? (now - last_).seconds() : 0;
    started_ = true;
    last_ = now;
    if (busy && dt > 0) {
      const double keep = std::exp(-dt / memory_s_);
      tokens_ *= keep;
      seconds_ = seconds_ * keep + dt;
    }
    tokens_ += static_cast<double>(tokens);
  }
  // 0 until a millisecond of busy time was seen.
  double tokens_per_s() const { return seconds_ < 1e-3 ? 0 : tokens_ / seconds_; }

 private:
  double memory_s_;
  double tokens_ = 0, seconds_ = 0;
  Time last_;
  bool started_ = false;
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_SERVICE_RATE_H_
