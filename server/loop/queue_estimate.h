// How many prompt tokens wait in a worker now, and how long a request that comes now would wait: the last
// snapshot, plus what was submitted since (WorkerState::last_submission tells what the snapshot has seen),
// over the prefill speed of the recent steps.
#ifndef ORRERY_SERVER_LOOP_QUEUE_ESTIMATE_H_
#define ORRERY_SERVER_LOOP_QUEUE_ESTIMATE_H_

#include <cstdint>
#include <deque>

#include "scheduler/base/time.h"
#include "scheduler/types/worker_state.h"
#include "server/link/worker_link.h"

namespace orrery {

class QueueEstimate {
 public:
  // The number to put into Submit::submission.
  uint64_t OnSubmit(int64_t prompt_tokens) {
    pending_.push_back({++last_, prompt_tokens});
    pending_tokens_ += prompt_tokens;
    return last_;
  }
  void OnReport(const WorkerReport& report) {
    waiting_ = report.state.waiting_prompt_tokens;
    while (!pending_.empty() && pending_.front().submission <= report.state.last_submission) {
      pending_tokens_ -= pending_.front().tokens;
      pending_.pop_front();
    }
    for (const StepStats& step : report.steps) {
      if (step.num_prefill_tokens == 0) continue;
      tokens_ = tokens_ * kKeep + step.num_prefill_tokens;
      seconds_ = seconds_ * kKeep + (step.engine + step.host).seconds();
    }
  }

  int64_t tokens() const { return waiting_ + pending_tokens_; }
  // Zero while no prefill has been seen.
  Duration PredictedWait() const {
    return tokens_ > 0 ? Duration::Seconds(static_cast<double>(tokens()) * seconds_ / tokens_) : Duration{};
  }

 private:
  static constexpr double kKeep = 0.98;  // about the last 50 steps
  struct Pending {
    uint64_t submission;
    int64_t tokens;
  };
  std::deque<Pending> pending_;
  uint64_t last_ = 0;
  int64_t waiting_ = 0, pending_tokens_ = 0;
  double tokens_ = 0, seconds_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_LOOP_QUEUE_ESTIMATE_H_
