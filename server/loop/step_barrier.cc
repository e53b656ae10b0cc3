#include "server/loop/step_barrier.h"

#include <algorithm>
#include <utility>

namespace orrery {

StepBarrier::StepBarrier(size_t num_ranks, std::function<void(const GroupStep&)> on_step)
    : on_step_(std::move(on_step)), ranks_(num_ranks) {}

void StepBarrier::Join(size_t rank, WorkerReportSink sink, std::function<void()> wake) {
  ranks_[rank].sink = std::move(sink);
  ranks_[rank].wake = std::move(wake);
}

void StepBarrier::Want(size_t rank) {
  if (wanted_.exchange(true, std::memory_order_acq_rel)) return;
  for (size_t other = 0; other < ranks_.size(); ++other) {
    if (other != rank) ranks_[other].wake();
  }
}

void StepBarrier::Arrive(size_t rank, WorkerReport report, Duration engine) {
  std::unique_lock lock(mutex_);
  ranks_[rank].report = std::move(report);
  ranks_[rank].engine = engine;
  if (stop_) return;
  if (++arrived_ == ranks_.size()) return EndStep();
  over_.wait(lock, [this, step = step_] { return stop_ || step_ != step; });
}

// REQUIRES: mutex_.
void StepBarrier::EndStep() {
  GroupStep group;
  int64_t most = 0, all = 0;
  for (const Rank& rank : ranks_) {
    group.longest = std::max(group.longest, rank.engine);
    most = std::max(most, rank.report->state.kv_tokens);
    all += rank.report->state.kv_tokens;
  }
  for (const Rank& rank : ranks_) group.idle = group.idle + (group.longest - rank.engine);
  const auto num_ranks = static_cast<int64_t>(ranks_.size());
  group.imbalance_tokens = num_ranks * most - all;
  on_step_(group);
  for (size_t i = 0; i < ranks_.size(); ++i) {
    ranks_[i].report->more_follow = i + 1 < ranks_.size();
    ranks_[i].sink(*std::exchange(ranks_[i].report, std::nullopt));
  }
  arrived_ = 0;
  ++step_;
  // Before anybody can begin the next one.
  wanted_.store(false, std::memory_order_release);
  over_.notify_all();
}

void StepBarrier::Stop() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  over_.notify_all();
}

}  // namespace orrery
