// The workers of this process for a router in another one: orrery.v1.Worker. One router at a time; it is told
// every report from its hello on, and what it has submitted is cancelled when its stream ends or falls
// silent.
//
// Requests, and the numbers of submissions, are the router's; inside the workers they are kept apart by the
// number of the stream, so that what is still said about an ended stream's requests reaches nobody.
#ifndef ORRERY_SERVER_LINK_WORKER_SERVICE_H_
#define ORRERY_SERVER_LINK_WORKER_SERVICE_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "grpcpp/grpcpp.h"
#include "orrery/v1/worker.grpc.pb.h"
#include "server/link/worker_link.h"
#include "server/loop/clock.h"

namespace orrery {

class WorkerSession;

class WorkerService final : public orrery::v1::Worker::CallbackService {
 public:
  struct Parts {
    const Clock* clock = nullptr;
    std::vector<std::shared_ptr<WorkerLink>> ranks;
    orrery::v1::WorkerHello hello;  // incarnations are of the process: each stream raises them
    std::function<bool()> ready;    // routers are turned away before
  };
  explicit WorkerService(Parts parts);
  ~WorkerService() override;

  grpc::ServerBidiReactor<orrery::v1::ToWorker, orrery::v1::FromWorker>* Connect(
      grpc::CallbackServerContext* context) override;

  // From the workers' threads; state.worker is the rank.
  void Report(WorkerReport report);
  // Ends the stream, and refuses others.
  void Close();

 private:
  friend class WorkerSession;
  // Opens the session, or says why not.
  absl::Status Begin(const orrery::v1::RouterHello& hello, const std::shared_ptr<WorkerSession>& session);
  void End(const WorkerSession* session);
  // Those that have said nothing for too long since they were opened. REQUIRES: mutex_.
  std::vector<std::shared_ptr<WorkerSession>> TakeSilent(Time now);
  void Beat();

  const Parts parts_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::shared_ptr<WorkerSession> session_;              // null: no router
  std::vector<std::weak_ptr<WorkerSession>> greeting_;  // opened, perhaps without a hello yet
  uint64_t num_sessions_ = 0;
  std::vector<uint64_t> last_submissions_;  // of each rank, over all sessions
  bool closed_ = false;
  std::thread beat_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_LINK_WORKER_SERVICE_H_
