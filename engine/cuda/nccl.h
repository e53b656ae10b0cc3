// NCCL, loaded when it is first asked for: messages and sums between ranks, each with a device of its own.
// Calls enqueue on a stream and return; sends and receives that wait for each other go in one group.
#ifndef ORRERY_ENGINE_CUDA_NCCL_H_
#define ORRERY_ENGINE_CUDA_NCCL_H_

#include <nccl.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace orrery::cuda {

// The library's functions by their own names, without the prefix.
struct Nccl {
  decltype(&::ncclGetVersion) GetVersion;
  decltype(&::ncclGetErrorString) GetErrorString;
  decltype(&::ncclGetLastError) GetLastError;
  decltype(&::ncclGetUniqueId) GetUniqueId;
  decltype(&::ncclCommInitRank) CommInitRank;
  decltype(&::ncclCommDestroy) CommDestroy;
  decltype(&::ncclCommAbort) CommAbort;
  decltype(&::ncclCommGetAsyncError) CommGetAsyncError;
  decltype(&::ncclGroupStart) GroupStart;
  decltype(&::ncclGroupEnd) GroupEnd;
  decltype(&::ncclSend) Send;
  decltype(&::ncclRecv) Recv;
  decltype(&::ncclAllReduce) AllReduce;
};

// Loaded once in a process and never unloaded. NotFound names the library or function that is missing.
absl::StatusOr<const Nccl*> LoadNccl();

// The error of a call that did `what`: InvalidArgument for arguments and use, Unavailable where another rank
// or the network failed, Internal otherwise.
absl::Status NcclStatus(const Nccl& nccl, ncclResult_t result, absl::string_view what);

}  // namespace orrery::cuda

#endif  // ORRERY_ENGINE_CUDA_NCCL_H_
