// In place of the CUDA engine and its device where this was built without the CUDA toolkit.
#include <string>

#include "engine/cuda_engine.h"

namespace orrery {
namespace {

absl::Status BuiltWithoutCuda() { return absl::NotFoundError("built without CUDA"); }

}  // namespace

absl::StatusOr<CudaParts> OpenCudaDevice(const EngineOptions& /*options*/) { return BuiltWithoutCuda(); }
absl::StatusOr<std::string> DescribeCudaDevice() { return BuiltWithoutCuda(); }
absl::StatusOr<LoadedEngines> LoadCudaEngines(const EngineOptions& /*options*/, const OpenCuda& /*open*/) {
  return BuiltWithoutCuda();
}
absl::StatusOr<EnginePlan> PlanCudaEngine(const EngineOptions& /*options*/, const OpenCuda& /*open*/) {
  return BuiltWithoutCuda();
}

}  // namespace orrery
