// The client's end of one Generate call, as the delivery sees it. One message is in flight at a time; whoever
// was told "not now" hears of it again when the message is gone (FrontMessage::kWritable).
#ifndef ORRERY_SERVER_DELIVERY_STREAM_WRITER_H_
#define ORRERY_SERVER_DELIVERY_STREAM_WRITER_H_

#include <cstdint>

#include "grpcpp/support/status.h"
#include "orrery/v1/inference.pb.h"

namespace orrery {

class StreamWriter {
 public:
  virtual ~StreamWriter() = default;
  // False: a message is in flight, and a notice will come when it is gone.
  virtual bool TryWrite(const orrery::v1::GenerateResponse& message) = 0;
  // The last message, and the end. False as above.
  virtual bool TryWriteAndFinish(const orrery::v1::GenerateResponse& message, const grpc::Status& status) = 0;
  // The end, even while a message is in flight. retry_ms: the pushback trailer of a refusal; negative: none.
  // After the end no other call but Abort is allowed.
  virtual void Finish(const grpc::Status& status, int64_t retry_ms) = 0;
  // Cuts the call off, without regard to what the client has read. Always allowed.
  virtual void Abort() = 0;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_DELIVERY_STREAM_WRITER_H_
