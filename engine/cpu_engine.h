// From a checkpoint folder to an executor on the CPU.
#ifndef ORRERY_ENGINE_CPU_ENGINE_H_
#define ORRERY_ENGINE_CPU_ENGINE_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine_options.h"
#include "engine/model_executor.h"

namespace orrery {

struct LoadedEngines {
  EnginePlan plan;
  std::vector<std::unique_ptr<ModelExecutor>> executors;  // one for each worker
};

// Checks, plans, packs the weights and allocates the KV pool. The checkpoint's files are closed when it
// returns.
absl::StatusOr<std::unique_ptr<ModelExecutor>> LoadCpuEngine(const EngineOptions& options);
// options.num_workers of them: each has its own KV pool and its share of the threads, the weights are there
// once.
absl::StatusOr<LoadedEngines> LoadCpuEngines(const EngineOptions& options);
// One over each backend of the caller's, which are all of a kind; the weights are there once.
absl::StatusOr<LoadedEngines> LoadEngines(const EngineOptions& options,
                                          std::vector<std::unique_ptr<Backend>> backends);
absl::StatusOr<std::unique_ptr<ModelExecutor>> LoadEngine(const EngineOptions& options,
                                                          std::unique_ptr<Backend> backend);

}  // namespace orrery

#endif  // ORRERY_ENGINE_CPU_ENGINE_H_
