#include "engine/cuda_engine.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/backend_cuda.h"

namespace orrery {
namespace {

// Of the device's memory that weights and buffers leave: nothing else wants it.
constexpr double kCudaKvShareOfFree = 0.9;

absl::Status RefuseType(absl::string_view option, DType type, absl::string_view supported) {
  return absl::InvalidArgumentError(
      absl::StrCat(option, " ", std::string(NameOf(type)), " is not supported on CUDA: ", supported));
}

// With what the operator left to the backend.
absl::StatusOr<EngineOptions> ForCuda(const EngineOptions& options, cuda::Device& device) {
  if (options.dtype.has_value() && *options.dtype != DType::kBF16 && *options.dtype != DType::kF16) {
    return RefuseType("--dtype", *options.dtype, "bf16 or f16");
  }
  const DType kv_dtype = options.kv_dtype.value_or(DType::kBF16);
  if (kv_dtype != DType::kBF16 && kv_dtype != DType::kE4M3) {
    return RefuseType("--kv-dtype", kv_dtype, "bf16 or fp8");
  }
  if (options.int8_weights)
    return absl::InvalidArgumentError("--weights int8 is not supported on CUDA: native");
  EngineOptions out = options;
  out.kv_dtype = kv_dtype;
  out.kv_share_of_free = kCudaKvShareOfFree;
  if (out.memory_bytes == 0) {
    absl::StatusOr<int64_t> free = device.FreeBytes();
    if (!free.ok()) return free.status();
    out.memory_bytes = *free;
  }
  return out;
}

struct Opened {
  EngineOptions options;
  std::vector<std::unique_ptr<Backend>> backends;
};

absl::StatusOr<Opened> Open(const EngineOptions& options, const OpenCuda& open, int count) {
  Opened opened;
  for (int i = 0; i < count; ++i) {
    absl::StatusOr<CudaParts> parts = open(options);
    if (!parts.ok()) return parts.status();
    if (i == 0) {
      absl::StatusOr<EngineOptions> resolved = ForCuda(options, *parts->device);
      if (!resolved.ok()) return resolved.status();
      opened.options = *std::move(resolved);
    }
    opened.backends.push_back(
        NewCudaBackend(std::move(parts->device), std::move(parts->gemm),
                       {.batch_invariant = options.batch_invariant, .graphs = options.cuda_graphs}));
  }
  return opened;
}

}  // namespace

absl::StatusOr<LoadedEngines> LoadCudaEngines(const EngineOptions& options, const OpenCuda& open) {
  absl::StatusOr<Opened> opened = Open(options, open, options.num_workers);
  if (!opened.ok()) return opened.status();
  return LoadEngines(opened->options, std::move(opened->backends));
}

absl::StatusOr<EnginePlan> PlanCudaEngine(const EngineOptions& options, const OpenCuda& open) {
  absl::StatusOr<ModelConfig> model = ReadModelConfig(options.model_dir);
  if (!model.ok()) return model.status();
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(options.model_dir);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::StatusOr<Opened> opened = Open(options, open, 1);
  if (!opened.ok()) return opened.status();
  absl::StatusOr<EnginePlan> plan =
      PlanEngine(opened->options, *model, *checkpoint, *opened->backends.front());
  if (!plan.ok()) return plan.status();
  if (absl::Status status = CheckCudaLimits(BackendLimitsOf(*plan)); !status.ok()) return status;
  return plan;
}

}  // namespace orrery
