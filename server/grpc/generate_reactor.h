// One Generate call. gRPC's threads call the reactions, the front loop's thread calls the StreamWriter; the
// two meet in the gate alone. Deletes itself when the call is over and
// the delivery has let go of it.
#ifndef ORRERY_SERVER_GRPC_GENERATE_REACTOR_H_
#define ORRERY_SERVER_GRPC_GENERATE_REACTOR_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "grpcpp/grpcpp.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "orrery/v1/inference.pb.h"
#include "scheduler/base/ids.h"
#include "server/delivery/stream_writer.h"
#include "server/grpc/write_gate.h"
#include "server/loop/front_loop.h"

namespace orrery {

class GenerateReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer>, public StreamWriter {
 public:
  // `open` counts the calls that are not over; counted down by the reactor.
  static std::shared_ptr<GenerateReactor> Create(RequestId id, grpc::CallbackServerContext* context,
                                                 FrontLoop* front, std::atomic<int64_t>* open);

  // From here on the front loop is told what happens to the call.
  void set_delivered() { delivered_ = true; }

  bool TryWrite(const orrery::v1::GenerateResponse& message) override;
  bool TryWriteAndFinish(const orrery::v1::GenerateResponse& message, const grpc::Status& status) override;
  void Finish(const grpc::Status& status, int64_t retry_ms) override;
  void Abort() override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  GenerateReactor(RequestId id, grpc::CallbackServerContext* context, FrontLoop* front,
                  std::atomic<int64_t>* open)
      : id_(id), context_(context), front_(front), open_(open) {}
  bool Take(const orrery::v1::GenerateResponse& message);

  const RequestId id_;
  grpc::CallbackServerContext* context_;
  FrontLoop* front_;
  std::atomic<int64_t>* open_;
  bool delivered_ = false;
  WriteGate gate_;
  grpc::ByteBuffer buffer_;  // of the message in flight
  std::shared_ptr<GenerateReactor> self_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_GRPC_GENERATE_REACTOR_H_
