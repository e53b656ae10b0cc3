// The router's worker processes: keeps a stream open to every address that the membership names, and tells
// when workers come and go. One that refuses, dies or falls silent is tried again, after a while that doubles
// up to seconds; one that the membership no longer names is not.
//
// Every rank of a process is a worker of its own, with an id that stays its own as long as its process is a
// member.
#ifndef ORRERY_SERVER_LINK_WORKER_DIRECTORY_H_
#define ORRERY_SERVER_LINK_WORKER_DIRECTORY_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "orrery/v1/worker.grpc.pb.h"
#include "server/link/membership.h"
#include "server/link/worker_link.h"
#include "server/link/worker_stream.h"
#include "server/loop/clock.h"

namespace orrery {

class WorkerDirectory {
 public:
  // Called on gRPC's threads; of one process in order: up, reports, down.
  struct Events {
    std::function<void(std::vector<AttachedWorker> workers)> up;
    std::function<void(std::vector<WorkerInfo> workers)> down;
    WorkerReportSink report;
  };
  struct Options {
    Duration heartbeat = Duration::Seconds(1);
    Duration resolve_interval = Duration::Seconds(5);
    size_t max_workers = 1024;
    orrery::v1::RouterHello hello;  // protocol version and heartbeat are filled in
    uint32_t vocab_size = 0;
  };

  WorkerDirectory(Options options, std::unique_ptr<Membership> membership, const Clock* clock, Events events);
  // Ends all streams.
  ~WorkerDirectory();

 private:
  class Process;

  static Options WithProtocol(Options options);
  void Run();
  void Resolve();
  // A process is up with so many ranks, which get *ids; those it has had it keeps. Error: its weights, or the
  // types it computes in, are not those of the first worker that came.
  absl::Status Join(const std::string& weights, size_t num_ranks, std::vector<WorkerId>* ids);
  void Forget(const std::vector<WorkerId>& ids);

  const Options options_;
  const std::unique_ptr<Membership> membership_;
  const Clock* const clock_;
  const Events events_;

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  uint32_t next_id_ = 0;
  std::set<WorkerId> free_ids_;
  std::string weights_;            // of the first worker: requests may go from any to any
  std::set<std::string> members_;  // by the last answer

  std::map<std::string, std::shared_ptr<Process>> processes_;  // by address; of the thread that tends them
  // Looking up a name may take long, and the streams want their beat.
  std::thread resolver_, thread_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_LINK_WORKER_DIRECTORY_H_
