#include "engine/cpu_engine.h"

#include <utility>

#include "engine/backend_cpu.h"

namespace orrery {

absl::StatusOr<std::unique_ptr<ModelExecutor>> LoadCpuEngine(const EngineOptions& options) {
  return LoadEngine(options,
                    NewCpuBackend(options.num_threads > 0 ? options.num_threads : DefaultCpuThreads()));
}

absl::StatusOr<std::unique_ptr<ModelExecutor>> LoadEngine(const EngineOptions& options,
                                                          std::unique_ptr<Backend> backend) {
  absl::StatusOr<ModelConfig> model = ReadModelConfig(options.model_dir);
  if (!model.ok()) return model.status();
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(options.model_dir);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::StatusOr<EnginePlan> plan = PlanEngine(options, *model, *checkpoint, *backend);
  if (!plan.ok()) return plan.status();
  if (absl::Status status = backend->Prepare(BackendLimitsOf(*plan)); !status.ok()) return status;

  absl::StatusOr<std::unique_ptr<Decoder>> decoder =
      Decoder::Load(*backend, *checkpoint, *model,
                    {.weights = plan->weights,
                     .activations = backend->ActivationDtype(plan->weights),
                     .max_rows = plan->limits.max_step_tokens,
                     .max_samples = ModelExecutor::SelectedRows(plan->limits),
                     .max_logit_rows = ModelExecutor::kLogitRows});
  if (!decoder.ok()) return decoder.status();
  absl::StatusOr<KvPool> pool =
      KvPool::Create(*backend, plan->attention, model->num_layers, plan->limits.num_blocks);
  if (!pool.ok()) return pool.status();
  return std::make_unique<ModelExecutor>(std::move(backend), *std::move(decoder), *std::move(pool),
                                         plan->limits);
}

}  // namespace orrery
