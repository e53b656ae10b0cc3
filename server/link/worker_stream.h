// The router's end of one stream to a worker process (orrery.v1.Worker), from its opening to its end. Nothing
// is kept over to the next one.
#ifndef ORRERY_SERVER_LINK_WORKER_STREAM_H_
#define ORRERY_SERVER_LINK_WORKER_STREAM_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "grpcpp/grpcpp.h"
#include "orrery/v1/worker.grpc.pb.h"
#include "server/link/worker_link.h"
#include "server/loop/clock.h"

namespace orrery {

class WorkerStream final : public grpc::ClientBidiReactor<orrery::v1::ToWorker, orrery::v1::FromWorker> {
 public:
  // On gRPC's threads, one at a time: hello once, then reports, then the end, also without a hello.
  struct Events {
    // An error ends the stream.
    std::function<absl::Status(const orrery::v1::WorkerHello& hello)> hello;
    std::function<void(uint32_t rank, WorkerReport report)> report;
    std::function<void(const absl::Status& why)> end;  // the last call
  };
  struct TellPrefixes {};
  using Command = std::variant<orrery::Submit, RequestId, SampleKey, TellPrefixes>;

  // `stub` and `clock` outlive the stream.
  static std::shared_ptr<WorkerStream> Open(orrery::v1::Worker::Stub* stub,
                                            const orrery::v1::RouterHello& hello, const Clock* clock,
                                            Events events);

  // From any thread. After the end: nothing happens.
  void Send(uint32_t rank, Command command);
  // Signs of life both ways: cuts the stream off when the worker gives none.
  void Beat(Time now);
  void Cut();

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  WorkerStream(const orrery::v1::RouterHello& hello, const Clock* clock, Events events);
  void WriteNext();
  absl::Status Take(Time now);

  const Clock* const clock_;
  const Duration heartbeat_;
  const Events events_;
  grpc::ClientContext context_;
  std::atomic<int64_t> heard_ns_, said_ns_;
  orrery::v1::FromWorker in_;  // of the reads
  bool greeted_ = false;       // of the reads
  int32_t vocab_size_ = 0;     // of the reads
  absl::Status broken_;        // of the reads: what the worker said that ended the stream
  orrery::v1::ToWorker out_;   // of the message in flight

  struct Addressed {
    uint32_t rank;
    Command command;
  };
  std::mutex mutex_;
  std::vector<Addressed> unsent_;
  bool writing_ = true;  // the hello, at first
  bool open_ = true;     // writes may begin
  std::shared_ptr<WorkerStream> self_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_LINK_WORKER_STREAM_H_
