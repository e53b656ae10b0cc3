#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/cuda/cublas_gemm.h"
#include "engine/cuda/runtime_device.h"
#include "engine/cuda_engine.h"

namespace orrery {

absl::StatusOr<CudaParts> OpenCudaDevice(const EngineOptions& options) {
  absl::StatusOr<cuda::DeviceInfo> info = cuda::FindDevice();
  if (!info.ok()) return info.status();
  absl::StatusOr<std::unique_ptr<cuda::Device>> device = cuda::NewRuntimeDevice(*info);
  if (!device.ok()) return device.status();
  absl::StatusOr<std::unique_ptr<cuda::Gemm>> gemm = cuda::NewCublasGemm(
      *info, {.batch_invariant = options.batch_invariant, .cache_dir = options.cache_dir});
  if (!gemm.ok()) return gemm.status();
  return CudaParts{.device = *std::move(device), .gemm = *std::move(gemm)};
}

absl::StatusOr<std::string> DescribeCudaDevice() {
  absl::StatusOr<cuda::DeviceInfo> info = cuda::FindDevice();
  if (!info.ok()) return info.status();
  if (absl::Status status = OpenCudaDevice({}).status(); !status.ok()) return status;
  return absl::StrCat(info->name, ", driver for CUDA ", info->driver_version / 1000, ".",
                      info->driver_version % 1000 / 10);
}

}  // namespace orrery
