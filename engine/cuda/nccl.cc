#include "engine/cuda/nccl.h"

#include "absl/strings/str_cat.h"
#include "engine/cuda/shared_library.h"

namespace orrery::cuda {
namespace {

absl::StatusOr<Nccl> FindNccl() {
  absl::StatusOr<SharedLibrary> library =
      SharedLibrary::Load(absl::StrCat("libnccl.so.", NCCL_MAJOR), absl::StrCat("NCCL ", NCCL_MAJOR));
  if (!library.ok()) return library.status();
  Nccl functions{};
  library->Find("ncclGetVersion", &functions.GetVersion);
  library->Find("ncclGetErrorString", &functions.GetErrorString);
  library->Find("ncclGetLastError", &functions.GetLastError);
  library->Find("ncclGetUniqueId", &functions.GetUniqueId);
  library->Find("ncclCommInitRank", &functions.CommInitRank);
  library->Find("ncclCommDestroy", &functions.CommDestroy);
  library->Find("ncclCommAbort", &functions.CommAbort);
  library->Find("ncclCommGetAsyncError", &functions.CommGetAsyncError);
  library->Find("ncclGroupStart", &functions.GroupStart);
  library->Find("ncclGroupEnd", &functions.GroupEnd);
  library->Find("ncclSend", &functions.Send);
  library->Find("ncclRecv", &functions.Recv);
  library->Find("ncclAllReduce", &functions.AllReduce);
  if (!library->status().ok()) return library->status();
  return functions;
}

absl::StatusCode CodeOf(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return absl::StatusCode::kOk;
    case ncclInvalidArgument:
    case ncclInvalidUsage:
      return absl::StatusCode::kInvalidArgument;
    case ncclSystemError:  // sockets, shared memory
    case ncclRemoteError:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

absl::StatusOr<const Nccl*> LoadNccl() {
  static const absl::StatusOr<Nccl> functions = FindNccl();
  if (!functions.ok()) return functions.status();
  return &*functions;
}

absl::Status NcclStatus(const Nccl& nccl, ncclResult_t result, absl::string_view what) {
  if (result == ncclSuccess) return absl::OkStatus();
  const char* const detail = nccl.GetLastError(nullptr);
  const bool has_detail = detail != nullptr && *detail != '\0';
  return absl::Status(CodeOf(result), absl::StrCat("NCCL ", what, ": ", nccl.GetErrorString(result),
                                                   has_detail ? ": " : "", has_detail ? detail : ""));
}

}  // namespace orrery::cuda
