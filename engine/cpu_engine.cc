#include "engine/cpu_engine.h"

#include <utility>

#include "engine/backend_cpu.h"

namespace orrery {

absl::StatusOr<LoadedEngines> LoadEngines(const EngineOptions& options,
                                          std::vector<std::unique_ptr<Backend>> backends) {
  absl::StatusOr<ModelConfig> model = ReadModelConfig(options.model_dir);
  if (!model.ok()) return model.status();
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(options.model_dir);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::StatusOr<EnginePlan> plan = PlanEngine(options, *model, *checkpoint, *backends.front());
  if (!plan.ok()) return plan.status();
  std::shared_ptr<const DecoderWeights> weights;
  LoadedEngines engines;
  for (std::unique_ptr<Backend>& backend : backends) {
    if (absl::Status status = backend->Prepare(BackendLimitsOf(*plan)); !status.ok()) return status;
    if (weights == nullptr) {
      auto loaded = DecoderWeights::Load(*backend, *checkpoint, *model, plan->weights);
      if (!loaded.ok()) return loaded.status();
      weights = *std::move(loaded);
    }
    absl::StatusOr<std::unique_ptr<Decoder>> decoder =
        Decoder::Create(*backend, weights,
                        {.activations = backend->ActivationDtype(plan->weights),
                         .max_rows = plan->limits.max_step_tokens,
                         .max_samples = ModelExecutor::SelectedRows(plan->limits, *backend),
                         .max_logit_rows = backend->max_logit_rows()});
    if (!decoder.ok()) return decoder.status();
    absl::StatusOr<KvPool> pool =
        KvPool::Create(*backend, plan->attention, model->num_layers, plan->limits.num_blocks);
    if (!pool.ok()) return pool.status();
    engines.executors.push_back(std::make_unique<ModelExecutor>(std::move(backend), *std::move(decoder),
                                                                *std::move(pool), plan->limits));
  }
  engines.plan = *std::move(plan);
  return engines;
}

absl::StatusOr<LoadedEngines> LoadCpuEngines(const EngineOptions& options) {
  std::vector<std::unique_ptr<Backend>> backends;
  for (int i = 0; i < options.num_workers; ++i) backends.push_back(NewCpuBackend(ThreadsPerWorker(options)));
  return LoadEngines(options, std::move(backends));
}

absl::StatusOr<std::unique_ptr<ModelExecutor>> LoadCpuEngine(const EngineOptions& options) {
  return LoadEngine(options, NewCpuBackend(ThreadsPerWorker(options)));
}

absl::StatusOr<std::unique_ptr<ModelExecutor>> LoadEngine(const EngineOptions& options,
                                                          std::unique_ptr<Backend> backend) {
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(std::move(backend));
  absl::StatusOr<LoadedEngines> engines = LoadEngines(options, std::move(backends));
  if (!engines.ok()) return engines.status();
  return std::move(engines->executors.front());
}

}  // namespace orrery
