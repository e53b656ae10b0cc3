// From a checkpoint folder to executors on a CUDA device.
#ifndef ORRERY_ENGINE_CUDA_ENGINE_H_
#define ORRERY_ENGINE_CUDA_ENGINE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/cpu_engine.h"
#include "engine/cuda/device.h"
#include "engine/cuda/gemm.h"
#include "engine/engine_options.h"

namespace orrery {

struct CudaParts {
  std::unique_ptr<cuda::Device> device;
  std::unique_ptr<cuda::Gemm> gemm;
};

// Opens the device once more: a stream and products of its own.
using OpenCuda = std::function<absl::StatusOr<CudaParts>(const EngineOptions&)>;

// The machine's first CUDA device. An error is one line that says what is missing: this build's support, the
// driver or one that is recent enough, a device, its architecture, or a library.
absl::StatusOr<CudaParts> OpenCudaDevice(const EngineOptions& options);
// "NVIDIA H200, driver for CUDA 13.0", of a device that OpenCudaDevice opens; otherwise its error.
absl::StatusOr<std::string> DescribeCudaDevice();

// As LoadCpuEngines and PlanEngine. Weights are bf16, or f16 as their checkpoint, KV is bf16 or e4m3, other
// types are refused; memory is the device's.
absl::StatusOr<LoadedEngines> LoadCudaEngines(const EngineOptions& options, const OpenCuda& open);
absl::StatusOr<EnginePlan> PlanCudaEngine(const EngineOptions& options, const OpenCuda& open);

}  // namespace orrery

#endif  // ORRERY_ENGINE_CUDA_ENGINE_H_
