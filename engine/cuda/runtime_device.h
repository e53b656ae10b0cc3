// The device interface on the CUDA runtime: one stream of the machine's first device.
#ifndef ORRERY_ENGINE_CUDA_RUNTIME_DEVICE_H_
#define ORRERY_ENGINE_CUDA_RUNTIME_DEVICE_H_

#include <cuda_runtime_api.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/cuda/device.h"

namespace orrery::cuda {

struct DeviceInfo {
  std::string name;  // "NVIDIA H200"
  int compute_major = 0, compute_minor = 0;
  int multiprocessors = 0;
  int driver_version = 0;  // 1000 * major + 10 * minor, of the CUDA version that the driver has
};

// Internal, ResourceExhausted where memory is short; `what` is the call.
absl::Status StatusOf(cudaError_t error, absl::string_view what);

// NotFound with one line that says what is missing.
absl::StatusOr<DeviceInfo> FindDevice();

// FindDevice's. Fails where it cannot run this build's kernels.
absl::StatusOr<std::unique_ptr<Device>> NewRuntimeDevice(const DeviceInfo& info);

}  // namespace orrery::cuda

#endif  // ORRERY_ENGINE_CUDA_RUNTIME_DEVICE_H_
