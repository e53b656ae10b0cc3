#include "engine/engine_options.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/backend_cpu.h"
#include "engine/model_executor.h"
#include "kernels/cpu/thread_pool.h"

namespace orrery {
namespace {

constexpr int32_t kBlockTokens = 16;
constexpr int32_t kMaxSeqs = 512;
constexpr int32_t kMaxStepTokens = 65536;
constexpr int kMaxWorkers = 64;
constexpr int64_t kMaxBlocks = std::numeric_limits<int32_t>::max();

absl::Status OutOfRange(absl::string_view option, int64_t value, int64_t low, int64_t high) {
  return absl::InvalidArgumentError(
      absl::StrCat("--", option, " ", value, " is not in [", low, ", ", high, "]"));
}

absl::string_view Name(DType dtype) {
  const auto name = NameOf(dtype);
  return {name.data(), name.size()};
}

// The dtype of most of the checkpoint: that of its largest tensor.
absl::StatusOr<DType> StoredDtype(const ModelConfig& model, const Checkpoint& checkpoint) {
  absl::StatusOr<WeightView> view =
      checkpoint.Weight("model.embed_tokens.weight", {model.vocab_size, model.hidden_size});
  if (!view.ok()) return view.status();
  return view->dtype;
}

absl::Status ResolveDtypes(const EngineOptions& options, DType stored, const Backend& backend,
                           EnginePlan* plan) {
  plan->dtype = options.dtype.value_or(backend.Packs(stored) ? stored : DType::kBF16);
  const auto is_float = [](DType d) { return d == DType::kF32 || d == DType::kBF16 || d == DType::kF16; };
  if (!is_float(plan->dtype)) return absl::InvalidArgumentError("--dtype must be f32, bf16 or f16");
  if (plan->dtype == DType::kF16 && stored != DType::kF16) {
    return absl::InvalidArgumentError(
        absl::StrCat("--dtype f16 needs a checkpoint in f16, this one is in ", Name(stored)));
  }
  plan->kv_dtype = options.kv_dtype.value_or(plan->dtype);
  if (!backend.KeepsKv(plan->kv_dtype)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--kv-dtype ", Name(plan->kv_dtype), " is not supported: f32, bf16 or f16, on CUDA bf16 or fp8"));
  }
  plan->weights = options.int8_weights ? DType::kI8 : plan->dtype;
  return absl::OkStatus();
}

absl::Status ResolveLimits(const EngineOptions& options, EnginePlan* plan) {
  if (options.block_tokens != kBlockTokens) {
    return OutOfRange("block-tokens", options.block_tokens, kBlockTokens, kBlockTokens);
  }
  if (options.max_num_seqs < 1 || options.max_num_seqs > kMaxSeqs) {
    return OutOfRange("max-num-seqs", options.max_num_seqs, 1, kMaxSeqs);
  }
  // Every running sequence needs a row of a decode step.
  if (options.max_step_tokens < options.max_num_seqs || options.max_step_tokens > kMaxStepTokens) {
    return OutOfRange("max-step-tokens", options.max_step_tokens, options.max_num_seqs, kMaxStepTokens);
  }
  const int64_t model_context = plan->model.max_positions;
  if (options.max_context < 0 || options.max_context > model_context) {
    return OutOfRange("max-context", options.max_context, 1, model_context);
  }
  if (options.num_threads < 0 || options.num_threads > 512) {
    return OutOfRange("threads", options.num_threads, 1, 512);
  }
  if (options.num_workers < 1 || options.num_workers > kMaxWorkers) {
    return OutOfRange("workers", options.num_workers, 1, kMaxWorkers);
  }
  plan->num_workers = options.num_workers;
  plan->num_threads = ThreadsPerWorker(options);
  plan->limits.block_tokens = options.block_tokens;
  plan->limits.max_num_seqs = options.max_num_seqs;
  plan->limits.max_step_tokens = options.max_step_tokens;
  plan->limits.max_context =
      static_cast<int32_t>(options.max_context == 0 ? model_context : options.max_context);
  plan->limits.vocab_size = static_cast<int32_t>(plan->model.vocab_size);
  return absl::OkStatus();
}

void EstimateFixedMemory(const Backend& backend, DType stored_dtype, EnginePlan* plan) {
  const ModelConfig& model = plan->model;
  const auto width = static_cast<int64_t>(SizeOf(plan->weights));
  const int64_t table = model.vocab_size * model.hidden_size;
  const int64_t untied = model.tie_embeddings ? 0 : table;
  plan->memory.weight_bytes =
      (model.num_parameters() - untied) * width + untied * static_cast<int64_t>(SizeOf(stored_dtype));
  const int64_t rows = plan->limits.max_step_tokens;
  const auto stored = static_cast<int64_t>(SizeOf(backend.ActivationDtype(plan->weights)));
  const int64_t per_row = 4 * (model.hidden_size + model.q_size() + 2 * model.kv_size()) +
                          stored * (model.hidden_size + model.q_size() + model.intermediate_size);
  plan->memory.activation_bytes =
      plan->num_workers *
      (rows * per_row +
       4 * ModelExecutor::SelectedRows(plan->limits, backend) * (model.q_size() + model.hidden_size) +
       4 * backend.max_logit_rows() * model.vocab_size + backend.WorkspaceBytes(BackendLimitsOf(*plan)));
}

// Rounded up.
int64_t MissingMiB(const MemoryPlan& memory, int64_t blocks) {
  const int64_t fixed = memory.weight_bytes + memory.activation_bytes;
  const double wanted =
      static_cast<double>(fixed) + static_cast<double>(blocks) * static_cast<double>(memory.kv_block_bytes);
  const double missing = wanted - static_cast<double>(memory.available_bytes);
  return static_cast<int64_t>(std::ceil(missing / (1 << 20)));
}

absl::Status SizeKvPool(const EngineOptions& options, const Backend& backend, EnginePlan* plan) {
  MemoryPlan& memory = plan->memory;
  // Of each worker.
  const int64_t free =
      (memory.available_bytes - memory.weight_bytes - memory.activation_bytes) / plan->num_workers;
  const int64_t tokens = options.kv_cache_tokens, bytes = options.kv_cache_bytes;
  if (tokens < 0 || bytes < 0 || (tokens > 0 && bytes > 0)) {
    return absl::InvalidArgumentError("--kv-cache-tokens and --kv-cache-bytes: give one, above 0");
  }
  // More than every slot can fill is never used.
  const int64_t per_seq = (int64_t{plan->limits.max_context} + kBlockTokens - 1) / kBlockTokens;
  int64_t blocks = 0;
  if (tokens > 0) {
    blocks = tokens / kBlockTokens;
  } else if (bytes > 0) {
    blocks = bytes / memory.kv_block_bytes;
  } else {
    blocks = std::min(
        static_cast<int64_t>(static_cast<double>(std::max<int64_t>(free, 0)) * options.kv_share_of_free) /
            memory.kv_block_bytes,
        per_seq * plan->limits.max_num_seqs);
  }
  if (tokens > 0 && blocks < 1) return OutOfRange("kv-cache-tokens", tokens, kBlockTokens, kMaxBlocks);
  if (bytes > 0 && blocks < 1) return OutOfRange("kv-cache-bytes", bytes, memory.kv_block_bytes, free);
  if (blocks > kMaxBlocks || blocks < 1 || blocks > free / memory.kv_block_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "weights ", memory.weight_bytes >> 20, " MiB, buffers ", memory.activation_bytes >> 20, " MiB and ",
        plan->num_workers, " KV pool(s) of ", std::max<int64_t>(blocks, 1), " blocks of ",
        memory.kv_block_bytes, " bytes do not fit the available ", memory.available_bytes >> 20, " MiB, ",
        MissingMiB(memory, plan->num_workers * std::max<int64_t>(blocks, 1)),
        " MiB are missing: lower --kv-cache-tokens, --kv-cache-bytes or --max-step-tokens",
        backend.Packs(DType::kI8) ? ", or use --weights int8" : ""));
  }
  plan->limits.num_blocks = static_cast<int32_t>(blocks);
  memory.kv_bytes = plan->num_workers * blocks * memory.kv_block_bytes;
  return absl::OkStatus();
}

int64_t ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int64_t value = -1;
  return file >> value ? value : -1;
}

}  // namespace

BackendLimits BackendLimitsOf(const EnginePlan& plan) {
  BackendLimits limits;
  limits.attention = plan.attention;
  for (const double inverse : RopeInverseFrequencies(plan.model.rope, plan.model.head_dim)) {
    limits.inverse_frequencies.push_back(static_cast<float>(inverse));
  }
  limits.max_rows = plan.limits.max_step_tokens;
  limits.max_slices = plan.limits.max_num_seqs;
  limits.max_context = plan.limits.max_context;
  limits.hidden = plan.model.hidden_size;
  limits.max_inner = std::max({plan.model.hidden_size, plan.model.intermediate_size, plan.model.q_size()});
  limits.vocab_size = plan.limits.vocab_size;
  return limits;
}

int ThreadsPerWorker(const EngineOptions& options) {
  const int threads = options.num_threads == 0 ? DefaultCpuThreads() : options.num_threads;
  return std::max(1, threads / std::max(1, options.num_workers));
}

int64_t AvailableMemoryBytes() {
  int64_t available = std::numeric_limits<int64_t>::max();
  std::ifstream meminfo("/proc/meminfo");
  std::string key, unit;
  int64_t kib = 0;
  while (meminfo >> key >> kib && std::getline(meminfo, unit)) {
    if (key == "MemAvailable:") available = kib << 10;
  }
  // A control group's limit (version 2, then 1); "max" reads as no number.
  for (const auto& [limit_path, used_path] :
       {std::pair("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        std::pair("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                  "/sys/fs/cgroup/memory/memory.usage_in_bytes")}) {
    const int64_t limit = ReadNumber(limit_path), used = ReadNumber(used_path);
    if (limit > 0 && used >= 0) available = std::min(available, std::max<int64_t>(limit - used, 0));
  }
  return available == std::numeric_limits<int64_t>::max() ? int64_t{1} << 30 : available;
}

absl::StatusOr<EnginePlan> PlanEngine(const EngineOptions& options, const ModelConfig& model,
                                      const Checkpoint& checkpoint, const Backend& backend) {
  EnginePlan plan;
  plan.model = model;
  absl::StatusOr<DType> stored = StoredDtype(model, checkpoint);
  if (!stored.ok()) return stored.status();
  if (absl::Status status = ResolveDtypes(options, *stored, backend, &plan); !status.ok()) return status;
  if (absl::Status status = ResolveLimits(options, &plan); !status.ok()) return status;
  plan.attention = {.num_heads = static_cast<int32_t>(model.num_heads),
                    .num_kv_heads = static_cast<int32_t>(model.num_kv_heads),
                    .head_dim = static_cast<int32_t>(model.head_dim),
                    .kv_dtype = plan.kv_dtype};
  plan.memory.available_bytes = options.memory_bytes > 0 ? options.memory_bytes : AvailableMemoryBytes();
  plan.memory.kv_block_bytes = backend.KvBlockBytes(plan.attention) * model.num_layers;
  EstimateFixedMemory(backend, *stored, &plan);
  if (absl::Status status = SizeKvPool(options, backend, &plan); !status.ok()) return status;
  return plan;
}

absl::StatusOr<EnginePlan> PlanEngine(const EngineOptions& options) {
  absl::StatusOr<ModelConfig> model = ReadModelConfig(options.model_dir);
  if (!model.ok()) return model.status();
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(options.model_dir);
  if (!checkpoint.ok()) return checkpoint.status();
  // What is wrong with their number is for the plan to say.
  const int threads = std::clamp(ThreadsPerWorker(options), 1, ThreadPool::kMaxThreads);
  return PlanEngine(options, *model, *checkpoint, *NewCpuBackend(threads));
}

std::string EnginePlan::ToString() const {
  const auto mib = [](int64_t bytes) {
    return absl::StrFormat("%.1f MiB", static_cast<double>(bytes) / (1 << 20));
  };
  const auto family = NameOf(model.family);
  return absl::StrCat("model: ", absl::string_view(family.data(), family.size()), ", ", model.num_layers,
                      " layers, ", model.num_parameters(), " parameters\n", "types: dtype ", Name(dtype),
                      ", weights ", Name(weights), ", kv ", Name(kv_dtype), "\n",
                      num_workers > 1 ? absl::StrCat("workers: ", num_workers, ", each with\n") : "",
                      "threads: ", num_threads, "\n", "limits: ", limits.max_num_seqs, " sequences, ",
                      limits.max_step_tokens, " tokens per step, context ", limits.max_context, "\n",
                      "weights: ", mib(memory.weight_bytes), "\n", "buffers: ", mib(memory.activation_bytes),
                      "\n", "kv pool: ", mib(memory.kv_bytes), " (", limits.num_blocks, " blocks of ",
                      limits.block_tokens, " tokens, ", memory.kv_block_bytes, " bytes each)\n",
                      "total: ", mib(memory.total_bytes()), " of ", mib(memory.available_bytes),
                      " available\n");
}

}  // namespace orrery
