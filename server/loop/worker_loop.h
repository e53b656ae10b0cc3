// One thread around one WorkerCore and one Executor: drains its mailbox, plans, launches, waits, reports. All
// decisions are the core's, all arithmetic the executor's, all text somebody else's.
#ifndef ORRERY_SERVER_LOOP_WORKER_LOOP_H_
#define ORRERY_SERVER_LOOP_WORKER_LOOP_H_

#include <atomic>
#include <future>
#include <memory>
#include <thread>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "engine/executor.h"
#include "scheduler/journal.h"
#include "scheduler/worker_core.h"
#include "server/link/worker_link.h"
#include "server/loop/clock.h"
#include "server/loop/journal_file.h"
#include "server/loop/mailbox.h"
#include "server/loop/step_barrier.h"

namespace orrery {

class WorkerLoop final : public WorkerLink {
 public:
  struct Parts {
    std::unique_ptr<WorkerCore> core;
    std::unique_ptr<Executor> executor;
    std::unique_ptr<JournalWriter> journal;     // null: nothing is recorded
    std::unique_ptr<JournalFile> journal_file;  // where the journal goes
    std::shared_ptr<StepBarrier> barrier;       // of its group; null: it steps alone
    size_t rank = 0;                            // in the group
  };
  // `clock` outlives the loop; `sink` is called on the loop's thread, or on that of another rank of its
  // group, and must be quick.
  WorkerLoop(Parts parts, const Clock* clock, WorkerReportSink sink);
  ~WorkerLoop() override;
  // Ends the thread after the steps in flight; what still runs is abandoned. The barrier of a group is
  // stopped first, by its owner.
  void Stop();
  // The same but waits `timeout` at most. False: a step does not return, and Stop would wait for it. Once.
  bool StopWithin(Duration timeout);

  void Submit(orrery::Submit submit) override;
  void CancelRequest(RequestId request) override;
  void CancelSample(const SampleKey& key) override;
  void TellPrefixes() override { mailbox_.Push(TellPrefixesCommand{}); }
  void Reset() override {}  // a step that hangs here hangs the process
  // New submissions are refused from here on, and reports say so.
  void Drain() { mailbox_.Push(DrainCommand{}); }

  // How long the step in flight has been running; zero between steps. Any thread.
  Duration StepAge() const;
  // Finished steps. Any thread.
  uint64_t num_steps() const { return num_steps_.load(std::memory_order_relaxed); }

 private:
  struct DrainCommand {};
  struct TellPrefixesCommand {};
  using Command = std::variant<orrery::Submit, RequestId, SampleKey, DrainCommand, TellPrefixesCommand>;

  void Run();
  void Apply(Command& command, Time now);
  void LaunchReady();
  void FinishOldest();
  void RunOutOfWork();
  void TakePart();
  // Of what has ended, which the core forgets when it plans again.
  void TakeFacts();
  bool MustPublish(Time now);
  void Publish(Time now);
  WorkerReport TakeReport(Time now);
  void Record();

  Parts parts_;
  WorkerCore* const core_;
  Executor* const executor_;
  const Clock* clock_;
  WorkerReportSink sink_;
  Mailbox<Command> mailbox_;

  struct InFlight {
    StepId step{};
    Time launched;
    absl::Status error;  // of Launch, told to the core when the step is the oldest
    StepStats stats;
  };
  // Of the loop's thread.
  std::vector<Command> commands_;
  std::vector<InFlight> in_flight_;  // oldest first
  StepResult result_;
  WorkerReport report_;
  Time host_since_;
  Time last_done_;           // the end of the last step
  bool to_publish_ = false;  // although there is no event
  bool holds_step_ = false;  // the report is that of a step and not published yet
  bool engine_lost_ = false;
  size_t num_looked_at_ = 0;  // events of the report
  Time published_;

  std::atomic<bool> stop_{false};
  std::atomic<int64_t> step_began_ns_{-1};
  std::atomic<uint64_t> num_steps_{0};
  std::promise<void> ended_;
  std::future<void> end_ = ended_.get_future();
  std::thread thread_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_LOOP_WORKER_LOOP_H_
