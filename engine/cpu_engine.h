// From a checkpoint folder to an executor on the CPU.
#ifndef ORRERY_ENGINE_CPU_ENGINE_H_
#define ORRERY_ENGINE_CPU_ENGINE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/engine_options.h"
#include "engine/model_executor.h"

namespace orrery {

// Checks, plans, packs the weights and allocates the KV pool. The checkpoint's files are closed when it
// returns.
absl::StatusOr<std::unique_ptr<ModelExecutor>> LoadCpuEngine(const EngineOptions& options);

}  // namespace orrery

#endif  // ORRERY_ENGINE_CPU_ENGINE_H_
