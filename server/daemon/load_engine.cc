#include "server/daemon/load_engine.h"

#include <cstdlib>
#include <fstream>
#include <limits>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/cpu_engine.h"
#include "engine/cuda_engine.h"
#include "engine/engine_options.h"
#include "engine/modeled_executor.h"
#include "engine/warm_up.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cuda/sample.h"
#include "scheduler/cost/step_cost.h"
#include "server/cost/cost_profile.h"
#include "spdlog/spdlog.h"

namespace orrery {
namespace {

// Where --max-step-tokens is not given.
constexpr int64_t kStepTokens = 2048, kCudaStepTokens = 8192;

constexpr char kCostForms[] =
    "constant:MS, linear:key=value,..., tile:key=value,..., table:..., FILE#NAME or FOLDER#NAME";

std::optional<DType> ParseDType(const std::string& name) {
  if (name == "f32") return DType::kF32;
  if (name == "bf16") return DType::kBF16;
  if (name == "f16") return DType::kF16;
  if (name == "fp8") return DType::kE4M3;
  return std::nullopt;  // auto
}

// As other programs choose it; empty where nobody has a home.
std::string CacheDir() {
  if (const char* const cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/') {
    return absl::StrCat(cache, "/orrery");
  }
  if (const char* const home = std::getenv("HOME"); home != nullptr && *home == '/') {
    return absl::StrCat(home, "/.cache/orrery");
  }
  return "";
}

int32_t StepTokens(const ServerConfig& config, int64_t otherwise) {
  return static_cast<int32_t>(config.max_step_tokens > 0 ? config.max_step_tokens : otherwise);
}

EngineOptions MakeEngineOptions(const ServerConfig& config, bool cuda) {
  EngineOptions options;
  options.model_dir = config.model;
  options.dtype = ParseDType(config.dtype);
  options.int8_weights = config.weights == "int8";
  options.kv_dtype = ParseDType(config.kv_dtype);
  options.num_threads = static_cast<int>(config.threads);
  options.num_workers = static_cast<int>(config.workers);
  options.kv_cache_tokens = config.kv_cache_tokens;
  options.kv_cache_bytes = config.kv_cache_bytes.bytes;
  options.block_tokens = static_cast<int32_t>(config.block_tokens);
  options.max_num_seqs = static_cast<int32_t>(config.max_num_seqs);
  options.max_step_tokens = StepTokens(config, cuda ? kCudaStepTokens : kStepTokens);
  options.max_context = static_cast<int32_t>(config.max_context);
  options.batch_invariant = config.batch_invariant == "auto" ? !cuda : config.batch_invariant == "on";
  options.cuda_graphs = config.cuda_graphs;
  options.cache_dir = CacheDir();
  return options;
}

// Of a model that is only pretended: no more than its vocabulary and its limits is needed.
absl::StatusOr<EngineLimits> ModeledLimits(const ServerConfig& config, const ModelConfig& model,
                                           int64_t profile_kv_tokens) {
  const int64_t kDefaultKvTokens = profile_kv_tokens > 0 ? profile_kv_tokens : 1 << 20;
  const int64_t bytes = config.kv_cache_bytes.bytes;
  if (bytes > 0 && config.kv_cache_tokens > 0) {
    return absl::InvalidArgumentError("--kv-cache-tokens and --kv-cache-bytes: give one");
  }
  int64_t kv_tokens = config.kv_cache_tokens > 0 ? config.kv_cache_tokens : kDefaultKvTokens;
  if (bytes > 0) {
    const DType dtype = ParseDType(config.kv_dtype).value_or(ParseDType(config.dtype).value_or(DType::kBF16));
    kv_tokens = bytes / (2 * model.num_layers * model.kv_size() * static_cast<int64_t>(SizeOf(dtype)));
  }
  const int64_t blocks = kv_tokens / config.block_tokens;
  if (blocks < 1 || blocks > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat(bytes > 0 ? "--kv-cache-bytes " : "--kv-cache-tokens ", bytes > 0 ? bytes : kv_tokens,
                     " makes ", blocks, " blocks; the pool has 1 to ", std::numeric_limits<int32_t>::max()));
  }
  EngineLimits limits;
  limits.block_tokens = static_cast<int32_t>(config.block_tokens);
  limits.num_blocks = static_cast<int32_t>(blocks);
  limits.max_num_seqs = static_cast<int32_t>(config.max_num_seqs);
  limits.max_step_tokens = StepTokens(config, kStepTokens);
  limits.max_context =
      static_cast<int32_t>(config.max_context > 0 ? config.max_context : model.max_positions);
  limits.vocab_size = static_cast<int32_t>(model.vocab_size);
  return limits;
}

// Empty without --cost-profile.
absl::StatusOr<CostProfile> LoadProfile(const ServerConfig& config) {
  if (config.cost_profile.empty()) return CostProfile{};
  auto profile = LoadCostProfile(config.cost_profile);
  if (profile.ok()) return profile;
  return absl::InvalidArgumentError(
      absl::StrCat("--", profile.status().message(), " (it takes ", kCostForms, ")"));
}

// What the policies believe: a model fitted to the steps of this machine, which begins as the profile.
std::string BelievedCost(const CostProfile& profile) {
  if (profile.cost.empty() || profile.cost.rfind("online", 0) == 0) {
    return profile.cost.empty() ? "online" : profile.cost;
  }
  return absl::StrCat("online:", profile.cost);
}

absl::StatusOr<std::unique_ptr<Executor>> MakeModeled(const ServerConfig& config, const ModelConfig& model,
                                                      const CostProfile& profile) {
  const auto limits = ModeledLimits(config, model, profile.kv_capacity_tokens);
  if (!limits.ok()) return limits.status();
  if (profile.cost.empty() || profile.cost.rfind("online", 0) == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--cost-profile: --backend modeled needs one: ", kCostForms));
  }
  auto cost = ParseStepCost(profile.cost);
  if (!cost.ok()) return cost.status();
  std::shared_ptr<const StepCostModel> shared = *std::move(cost);
  return std::make_unique<ModeledExecutor>(
      *limits, 1, [shared](const StepPlan& plan) { return shared->Predict(ShapeOf(plan)); });
}

// As the system calls it; empty where it has no word for it.
std::string Processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 1);
  }
  return "";
}

// The limit holds for the process. More than the machine has is refused rather than lowered in silence.
absl::Status LimitInstructions(const std::string& name) {
  const Isa isa = IsaFromName(name).value_or(DetectedIsa());
  if (isa > DetectedIsa()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--isa: ", name, " is more than this machine has, which is ", std::string(NameOf(DetectedIsa()))));
  }
  LimitIsa(isa);
  return absl::OkStatus();
}

// What a router without workers of its own knows of them.
EngineLimits RouterLimits(const ServerConfig& config, const ModelConfig& model) {
  EngineLimits limits;
  limits.block_tokens = static_cast<int32_t>(config.block_tokens);
  limits.max_context = static_cast<int32_t>(model.max_positions);
  limits.vocab_size = static_cast<int32_t>(model.vocab_size);
  return limits;
}

// cpu or cuda.
struct ChosenBackend {
  bool cuda = false;
  std::string device{};        // in words, where cuda
  std::string why_not_cuda{};  // of auto, where not
};

absl::StatusOr<ChosenBackend> ChooseBackend(const ServerConfig& config) {
  if (config.backend == "cpu") return ChosenBackend{};
  auto device = DescribeCudaDevice();
  if (!device.ok()) {
    if (config.backend == "auto") {
      return ChosenBackend{.why_not_cuda = std::string(device.status().message())};
    }
    return absl::InvalidArgumentError(absl::StrCat("--backend: cuda: ", device.status().message()));
  }
  if (config.max_logprobs > cuda::kMaxTopTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-logprobs: ", config.max_logprobs, ": CUDA gives at most ", cuda::kMaxTopTokens));
  }
  return ChosenBackend{.cuda = true, .device = *std::move(device)};
}

}  // namespace

absl::Status LoadEngine(const ServerConfig& config, const ModelConfig& model, ServerParts* parts) {
  if (config.role == "router") {
    parts->limits = RouterLimits(config, model);
    parts->model.set_backend("router");
    return absl::OkStatus();
  }
  const auto profile = LoadProfile(config);
  if (!profile.ok()) return profile.status();
  parts->engine.cost = BelievedCost(*profile);
  if (config.backend == "modeled") {
    for (int64_t i = 0; i < config.workers; ++i) {
      auto executor = MakeModeled(config, model, *profile);
      if (!executor.ok()) return executor.status();
      parts->engine.executors.push_back(*std::move(executor));
    }
    parts->model.set_backend("modeled");
    parts->hardware = absl::StrCat("modeled ", config.cost_profile);
    return absl::OkStatus();
  }
  if (absl::Status status = LimitInstructions(config.isa); !status.ok()) return status;
  const auto chosen = ChooseBackend(config);
  if (!chosen.ok()) return chosen.status();
  if (!chosen->why_not_cuda.empty()) {
    spdlog::info("backend: cpu; no CUDA device: {}", chosen->why_not_cuda);
  }
  const EngineOptions options = MakeEngineOptions(config, chosen->cuda);
  auto engines = chosen->cuda ? LoadCudaEngines(options, OpenCudaDevice) : LoadCpuEngines(options);
  if (!engines.ok()) return engines.status();
  if (chosen->cuda) {
    spdlog::info("engine: going through the sizes of steps (algorithms are looked for once on a machine)");
    for (const auto& engine : engines->executors) {
      if (absl::Status status = WarmUp(*engine); !status.ok()) return status;
    }
  }
  for (auto& engine : engines->executors) parts->engine.executors.push_back(std::move(engine));
  const auto name = [](DType type) { return std::string(NameOf(type)); };
  const EnginePlan& plan = engines->plan;
  parts->model.set_backend(chosen->cuda ? "cuda" : "cpu");
  parts->model.set_dtype(name(plan.dtype));
  parts->model.set_weights(name(plan.weights));
  parts->model.set_kv_dtype(name(plan.kv_dtype));
  const std::string machine = chosen->cuda
                                  ? chosen->device
                                  : absl::StrCat(Processor(), " ", std::thread::hardware_concurrency(),
                                                 " cores ", config.threads, " threads");
  parts->hardware =
      absl::StrCat(machine, " ", name(plan.dtype), " ", name(plan.weights), " ", name(plan.kv_dtype));
  return absl::OkStatus();
}

absl::StatusOr<std::string> DescribeEngine(const ServerConfig& config) {
  if (config.role == "router") return "router: no engine\n";
  if (config.backend == "modeled") {
    const auto model = ReadModelConfig(config.model);
    if (!model.ok()) return model.status();
    const auto profile = LoadProfile(config);
    if (!profile.ok()) return profile.status();
    const auto limits = ModeledLimits(config, *model, profile->kv_capacity_tokens);
    if (!limits.ok()) return limits.status();
    return absl::StrCat("backend: modeled\nlimits: ", limits->max_num_seqs, " sequences, ",
                        limits->max_step_tokens, " tokens per step, context ", limits->max_context,
                        "\nkv pool: ", limits->num_blocks, " blocks of ", limits->block_tokens, " tokens\n");
  }
  if (absl::Status status = LimitInstructions(config.isa); !status.ok()) return status;
  const auto chosen = ChooseBackend(config);
  if (!chosen.ok()) return chosen.status();
  const EngineOptions options = MakeEngineOptions(config, chosen->cuda);
  auto plan = chosen->cuda ? PlanCudaEngine(options, OpenCudaDevice) : PlanEngine(options);
  if (!plan.ok()) return plan.status();
  if (chosen->cuda) return absl::StrCat("backend: cuda, ", chosen->device, "\n", plan->ToString());
  const std::string why = chosen->why_not_cuda.empty() ? "" : absl::StrCat("; ", chosen->why_not_cuda);
  return absl::StrCat("backend: cpu", why, "\n", plan->ToString(),
                      "instructions: ", std::string(NameOf(ActiveIsa())), "\n");
}

}  // namespace orrery
