// One thread between the clients' calls and the workers, around a RouterCore: admits, submits, takes the
// workers' reports, turns token events into messages and hands them to the calls' writers. All requests live
// here, so nothing about a request needs a lock. The loop never waits for a client: a writer takes a message
// or says that it will call back.
//
// A client that does not read holds up nobody. Its unread output is kept until it exceeds
// `stream_buffer_bytes`; then the request is cancelled in the worker and ends with RESOURCE_EXHAUSTED
// (slow_reader). A call whose client takes nothing at all for `write_timeout` is cut off.
#ifndef ORRERY_SERVER_LOOP_FRONT_LOOP_H_
#define ORRERY_SERVER_LOOP_FRONT_LOOP_H_

#include <atomic>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "router/router_core.h"
#include "server/delivery/generation.h"
#include "server/link/worker_link.h"
#include "server/loop/clock.h"
#include "server/loop/load_board.h"
#include "server/loop/mailbox.h"
#include "server/loop/price_planner.h"
#include "server/loop/refusal_log.h"
#include "server/metrics/server_metrics.h"

namespace orrery {

struct FrontOptions {
  AdmissionLimits admission;
  size_t stream_buffer_bytes = 256 << 10;
  Duration write_timeout = Duration::Seconds(60);
  Duration plan_interval = Duration::Seconds(10);  // of resource prices
  // What a worker may take for a step before its requests go elsewhere.
  Duration progress_timeout = Duration::Infinite();
  uint64_t hash_key = 0;  // RouterCore's
};

class FrontLoop {
 public:
  // `clock` and `metrics` outlive the loop.
  FrontLoop(const FrontOptions& options, std::unique_ptr<RoutePolicy> policy, const Clock* clock,
            ServerMetrics* metrics);
  ~FrontLoop();
  // Ends the thread.
  void Stop();

  // From any thread. The calls' side:
  void Arrive(std::unique_ptr<Generation> generation);
  void Writable(RequestId request);                  // the message in flight is gone
  void Cancelled(RequestId request, bool deadline);  // the client is gone
  void Closed(RequestId request);  // the call is over: its writer is not to be touched again
  // A call that is refused before it became a Generation: ends it, counts it and logs it under `name`. The
  // caller owns the writer.
  void RefuseEarly(StreamWriter& writer, absl::string_view name, const absl::Status& why);
  // The workers' side. Ids are small: they are places in lists. The same id again is a new incarnation.
  // Those that come or go together.
  void WorkersUp(std::vector<AttachedWorker> workers);
  void WorkersDown(std::vector<WorkerInfo> workers);
  void Report(WorkerReport report);
  // Refuses what arrives from here on; `drained` is called on the loop's thread when the last request is
  // over.
  void Drain(std::function<void()> drained);
  // Ends every request at once with UNAVAILABLE.
  void AbortAll();

  const LoadBoard& load() const { return load_; }

 private:
  // What a worker holds, by its last report: its part of the load.
  struct Held {
    int64_t waiting = 0, running = 0, kv_tokens = 0, blocks_total = 0, blocks_free = 0;
  };
  struct WritableMessage {
    RequestId request;
  };
  struct CancelledMessage {
    RequestId request;
    bool deadline;
  };
  struct ClosedMessage {
    RequestId request;
  };
  struct UpMessage {
    std::vector<AttachedWorker> workers;
  };
  struct DownMessage {
    std::vector<WorkerInfo> workers;
  };
  struct DrainMessage {
    std::function<void()> drained;
  };
  struct AbortMessage {};
  using Message =
      std::variant<std::unique_ptr<Generation>, WorkerReport, WritableMessage, CancelledMessage,
                   ClosedMessage, UpMessage, DownMessage, DrainMessage, AbortMessage, ResourcePrices>;

  void Run();
  void On(std::unique_ptr<Generation>& arrival);
  void On(WorkerReport& report);
  void On(WritableMessage& message);
  void On(CancelledMessage& message);
  void On(ClosedMessage& message);
  void On(UpMessage& message);
  void On(DownMessage& message);
  void On(DrainMessage& message);
  void On(AbortMessage& message);
  void On(ResourcePrices& prices) { metrics_->OnPrices(prices); }

  absl::Status Admit(Generation& generation);
  void Refuse(Generation& generation, const absl::Status& why);
  void OnEvent(const TokenEvent& event);
  void OnLost(const EndedSample& lost);
  void Carry();
  void Cancel(RequestId id);
  Generation* Find(RequestId id);
  // Null: it is not there.
  WorkerLink* LinkOf(WorkerId worker);
  bool IsThere(WorkerId worker, uint64_t incarnation) const;
  void Pump(Generation& generation);
  void Close(Generation& generation, Outcome outcome);
  void Forget(Generation& generation);
  void EndAtDeadline();
  void Sweep();
  Time NextWake() const;
  void PublishLoad();
  void TakeDown(WorkerId worker);
  void CountWorkers();
  void Hold(WorkerId worker, const Held& held);

  const FrontOptions options_;
  const Clock* clock_;
  ServerMetrics* metrics_;
  LoadBoard load_;
  RefusalLog refusal_log_;
  Mailbox<Message> mailbox_;

  // Of the loop's thread.
  Time now_;
  std::vector<Message> messages_;
  absl::flat_hash_map<RequestId, std::unique_ptr<Generation>> live_;
  absl::flat_hash_set<std::string> live_names_;  // the clients' request ids
  struct Closing {
    std::shared_ptr<StreamWriter> writer;
    Time since;
    bool aborted = false;
  };
  absl::flat_hash_map<RequestId, Closing> closing_;  // over, but the call is not yet
  std::set<std::pair<Time, RequestId>> deadlines_;   // of live requests
  std::vector<RequestId> touched_;
  RouterCore router_;
  RouterOutput orders_;                  // of the router, until Carry
  DecisionRecord step_decision_;         // of the step that the report at hand is about
  std::vector<AttachedWorker> workers_;  // by id; without a link: not there
  std::vector<Held> held_;               // of each worker
  Time next_sweep_;
  int64_t new_tokens_ = 0;  // of the report at hand
  std::function<void()> drained_;
  PricePlanner planner_;  // its thread ends before the mailbox does

  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_LOOP_FRONT_LOOP_H_
