// What an operator may say about an engine, and the plan that follows from it before anything is loaded:
// types, limits and bytes. `orreryd --dry-run` prints the plan.
#ifndef ORRERY_ENGINE_ENGINE_OPTIONS_H_
#define ORRERY_ENGINE_ENGINE_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/backend.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/model_config.h"
#include "engine/executor.h"
#include "kernels/dtype.h"

namespace orrery {

struct EngineOptions {
  std::string model_dir;
  std::optional<DType> dtype;     // kF32, kBF16, kF16; not given: as the checkpoint stores its weights, bf16
                                  // where the backend has no such type
  bool int8_weights = false;      // matrices as i8 with one scale per output channel
  std::optional<DType> kv_dtype;  // as Backend::KeepsKv has them; not given: the dtype above, on CUDA bf16
  int num_threads = 0;            // of all workers together; 0: the cores this process may use
  int num_workers = 1;            // that share the weights; what follows is of each
  // At most one of these; neither: a share of the memory left beside weights and buffers.
  int64_t kv_cache_tokens = 0;
  int64_t kv_cache_bytes = 0;
  double kv_share_of_free = 0.6;
  int32_t block_tokens = 16;
  int32_t max_num_seqs = 256;
  int32_t max_step_tokens = 2048;
  int32_t max_context = 0;      // 0: the model's
  bool batch_invariant = true;  // the CPU kernels always are: false changes nothing there
  bool cuda_graphs = true;      // small decode steps are launched as a whole
  int64_t memory_bytes = 0;     // what the process may use; 0: ask the system
  std::string cache_dir;        // for what is measured once on a machine; empty: not kept
};

// Of all workers together.
struct MemoryPlan {
  int64_t available_bytes = 0;
  int64_t weight_bytes = 0;
  int64_t activation_bytes = 0;  // activations, logits, scratch
  int64_t kv_block_bytes = 0;    // one block of all layers of one worker
  int64_t kv_bytes = 0;
  int64_t total_bytes() const { return weight_bytes + activation_bytes + kv_bytes; }
};

struct EnginePlan {
  ModelConfig model;
  DType dtype = DType::kF32;    // --dtype, resolved
  DType weights = DType::kF32;  // of the packed matrices
  DType kv_dtype = DType::kF32;
  int num_workers = 1;
  int num_threads = 1;  // of each worker
  AttentionSpec attention;
  EngineLimits limits;
  MemoryPlan memory;

  // Several lines, for people.
  std::string ToString() const;
};

// Reads config.json and the tensor headers. InvalidArgument names the option and its limit, ResourceExhausted
// how much memory is missing and which option helps.
absl::StatusOr<EnginePlan> PlanEngine(const EngineOptions& options);
absl::StatusOr<EnginePlan> PlanEngine(const EngineOptions& options, const ModelConfig& model,
                                      const Checkpoint& checkpoint, const Backend& backend);

// What the plan's engine asks Backend::Prepare for.
BackendLimits BackendLimitsOf(const EnginePlan& plan);

// At least one.
int ThreadsPerWorker(const EngineOptions& options);

// What this process may still allocate: the system's available memory, or what is left of its control group.
int64_t AvailableMemoryBytes();

}  // namespace orrery

#endif  // ORRERY_ENGINE_ENGINE_OPTIONS_H_
