// The load generator's connection to an Orrery server: orrery.v1.Inference over gRPC.
//
// All streams are read by one thread from one completion queue. It shares the machine with the server under
// test, and gRPC's callback API hands every message from the polling thread to another one: the queue
// takes about a third less processor time per message (34 against 53 us where messages come one by one).
#ifndef ORRERY_SERVER_BENCH_GRPC_TRANSPORT_H_
#define ORRERY_SERVER_BENCH_GRPC_TRANSPORT_H_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "orrery/v1/inference.grpc.pb.h"
#include "server/bench/transport.h"

namespace orrery::bench {

class GrpcTransport : public Transport {
 public:
  // Connects to HOST:PORT and asks for the model. Unavailable when no server answers within `timeout`.
  static absl::StatusOr<std::unique_ptr<GrpcTransport>> Connect(const std::string& target,
                                                                absl::Duration timeout);
  // Waits for every open stream.
  ~GrpcTransport() override;

  // Streams started from here on fail with the reason "timeout" when they take longer.
  void set_timeout(absl::Duration timeout) { timeout_ = timeout; }

  const v1::GetModelResponse& model() const { return model_; }
  // Tokens of `text` as a text prompt without special tokens.
  absl::StatusOr<int32_t> CountTokens(const std::string& text);

  void Send(const OutgoingRequest& request, StreamEvents* events) override;
  void CancelAll() override;

 private:
  class Call;
  // One TCP connection. A connection carries at most as many streams as the server allows; further calls
  // would wait inside the client, unseen, so another connection is opened before that.
  struct Connection {
    std::unique_ptr<v1::Inference::Stub> stub;
    int64_t open = 0;  // guarded by mutex_
  };

  explicit GrpcTransport(std::string target);
  Connection* AddConnection();
  Connection* PickConnection();  // REQUIRES: mutex_ held
  void Poll();                   // the reading thread
  void Retire(Call* call);

  const std::string target_;
  absl::Duration timeout_ = absl::InfiniteDuration();
  v1::GetModelResponse model_;
  std::mutex mutex_;
  std::condition_variable idle_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::unordered_set<Call*> calls_;  // open; guarded by mutex_
  grpc::CompletionQueue queue_;
  std::thread reader_;
};

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_GRPC_TRANSPORT_H_
