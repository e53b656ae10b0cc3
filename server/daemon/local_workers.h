// The workers of this process: a WorkerLoop around each executor, warmed up before anybody else hears of it.
#ifndef ORRERY_SERVER_DAEMON_LOCAL_WORKERS_H_
#define ORRERY_SERVER_DAEMON_LOCAL_WORKERS_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/executor.h"
#include "scheduler/worker_factory.h"
#include "server/config/server_config.h"
#include "server/link/worker_link.h"
#include "server/loop/clock.h"
#include "server/loop/step_barrier.h"
#include "server/loop/worker_loop.h"

namespace orrery {

// What workers compute with.
struct EngineParts {
  std::vector<std::unique_ptr<Executor>> executors;  // one for each worker, with equal limits; not empty
  uint64_t hash_key = 0;        // a secret: names tenants, salts and the blocks of prefixes
  std::string cost = "online";  // step times as the policies believe them; ParseStepCost's form
  // A warm-up failed, or an engine is lost: the process had better leave. On a thread of the workers'.
  std::function<void()> on_engine_failed = [] {};
};

class LocalWorkers {
 public:
  // Called on the workers' threads; of one worker in order: up, when it is warm, then its reports.
  struct Events {
    std::function<void(AttachedWorker worker)> up;
    WorkerReportSink report;
    std::function<void(GroupId group, const GroupStep& step)> group_step;  // of groups alone
  };

  // Errors: bad policy, journal not writable. `clock` outlives the workers.
  static absl::StatusOr<std::unique_ptr<LocalWorkers>> Start(const ServerConfig& config, EngineParts parts,
                                                             const Clock* clock, Events events);
  ~LocalWorkers() { Stop(); }

  size_t size() const { return workers_.size(); }
  // Of each worker, by id.
  std::vector<AttachedWorker> all() const;
  // What keeps them from serving, in words; empty: nothing. A step in flight for `step_timeout` is logged,
  // once.
  std::string WhatIsMissing(Duration step_timeout);
  // Nobody takes new requests any more.
  void Drain();
  // Ends the threads. StopWithin: false when a step does not return; then this object cannot be destroyed.
  void Stop();
  bool StopWithin(Duration timeout);

 private:
  struct Worker {
    WorkerInfo info;
    std::shared_ptr<WorkerLoop> loop;
    std::atomic<bool> warm{false};
  };

  LocalWorkers(const Clock* clock, Events events, std::function<void()> on_engine_failed)
      : clock_(clock), events_(std::move(events)), on_engine_failed_(std::move(on_engine_failed)) {}
  absl::Status StartWorker(const WorkerSpec& spec, const std::string& record,
                           std::unique_ptr<Executor> executor, std::shared_ptr<StepBarrier> barrier);
  void StopBarriers();
  void WarmUp(Worker& worker);
  void OnReport(Worker& worker, WorkerReport report);
  void Fail(absl::string_view what, absl::string_view why);

  const Clock* const clock_;
  const Events events_;
  const std::function<void()> on_engine_failed_;
  std::vector<std::unique_ptr<Worker>> workers_;        // by id
  std::vector<std::shared_ptr<StepBarrier>> barriers_;  // by group; empty: the workers step alone
  bool hung_ = false;                                   // of WhatIsMissing
};

}  // namespace orrery

#endif  // ORRERY_SERVER_DAEMON_LOCAL_WORKERS_H_
