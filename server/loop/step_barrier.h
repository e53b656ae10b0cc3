// Where the ranks of a data-parallel group meet: no rank begins a step before all have ended theirs, as the
// experts' all-to-all makes it. The last one to arrive hands out the reports of all, so that the router sees
// the group as it is between two steps. Idle ranks take part as long as any other has work.
#ifndef ORRERY_SERVER_LOOP_STEP_BARRIER_H_
#define ORRERY_SERVER_LOOP_STEP_BARRIER_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "server/link/worker_link.h"

namespace orrery {

class StepBarrier {
 public:
  // `on_step` is called by the last rank to arrive, before the reports are handed out.
  StepBarrier(size_t num_ranks, std::function<void(const GroupStep&)> on_step);

  // Once for each rank, before any of them has work: how its report is handed out, and how it is woken when
  // another has work.
  void Join(size_t rank, WorkerReportSink sink, std::function<void()> wake);

  // A rank has begun a step: all take part.
  void Want(size_t rank);
  bool wanted() const { return wanted_.load(std::memory_order_acquire); }
  // The rank's part of the step is done; `engine` is zero where it had none. Returns when all have arrived.
  void Arrive(size_t rank, WorkerReport report, Duration engine);
  // Nobody waits for anybody from here on.
  void Stop();

 private:
  struct Rank {
    WorkerReportSink sink;
    std::function<void()> wake;
    std::optional<WorkerReport> report;  // of the step at hand, once it has arrived
    Duration engine;
  };

  void EndStep();

  const std::function<void(const GroupStep&)> on_step_;
  std::atomic<bool> wanted_{false};
  std::mutex mutex_;
  std::condition_variable over_;
  std::vector<Rank> ranks_;
  size_t arrived_ = 0;
  uint64_t step_ = 0;
  bool stop_ = false;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_LOOP_STEP_BARRIER_H_
