// Submissions, commands and reports as the messages of orrery.v1.Worker, and back. What makes no sense as a
// message is an error (INVALID_ARGUMENT) that ends the stream; whether a request can be run, the worker's
// core decides.
#ifndef ORRERY_SERVER_LINK_WIRE_H_
#define ORRERY_SERVER_LINK_WIRE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "orrery/v1/worker.pb.h"
#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/types/request.h"
#include "server/link/worker_link.h"

namespace orrery {

// Raised whenever an older peer would misread what is sent.
inline constexpr uint32_t kWorkerProtocol = 2;
// Of one message either way; what a client may send is far below.
inline constexpr int kMostWireBytes = 256 << 20;

using SharedTokens = std::shared_ptr<const std::vector<TokenId>>;

void ToWire(const SampleKey& key, orrery::v1::WireSampleKey* wire);
SampleKey FromWire(const orrery::v1::WireSampleKey& wire);

// `before`: the tokens of the submission before it in the message, null for the first.
void ToWire(const Submit& submit, const SharedTokens& before, Time now, orrery::v1::WireSubmit* wire);
// *tokens is `before`, and becomes its own.
absl::StatusOr<Submit> FromWire(const orrery::v1::WireSubmit& wire, Time now, SharedTokens* tokens);

void ToWire(const WorkerReport& report, uint32_t rank, Time now, orrery::v1::WireReport* wire);
// The state's worker and incarnation are left to the caller.
absl::StatusOr<WorkerReport> FromWire(const orrery::v1::WireReport& wire, int32_t vocab_size, Time now);

}  // namespace orrery

#endif  // ORRERY_SERVER_LINK_WIRE_H_
