#include "server/daemon/load_parts.h"

#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/checkpoint/generation_config.h"
#include "engine/checkpoint/model_config.h"
#include "engine/cpu_engine.h"
#include "engine/engine_options.h"
#include "engine/modeled_executor.h"
#include "kernels/cpu/cpu_features.h"
#include "scheduler/base/hash.h"
#include "scheduler/cost/step_cost.h"
#include "server/base/random_word.h"
#include "server/cost/cost_profile.h"
#include "server/daemon/model_digest.h"
#include "server/daemon/model_text.h"

namespace orrery {
namespace {

constexpr size_t kShortestSecret = 16, kLongestSecret = 4096;

constexpr char kCostForms[] =
    "constant:MS, linear:key=value,..., tile:key=value,..., table:..., FILE#NAME or FOLDER#NAME";

std::optional<DType> ParseDType(const std::string& name) {
  if (name == "f32") return DType::kF32;
  if (name == "bf16") return DType::kBF16;
  if (name == "f16") return DType::kF16;
  return std::nullopt;  // auto
}

EngineOptions MakeEngineOptions(const ServerConfig& config) {
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
  options.max_step_tokens = static_cast<int32_t>(config.max_step_tokens);
  options.max_context = static_cast<int32_t>(config.max_context);
  options.batch_invariant = config.batch_invariant;
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
  limits.max_step_tokens = static_cast<int32_t>(config.max_step_tokens);
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

SamplingDefaults MakeDefaults(const GenerationConfig& generation) {
  SamplingDefaults defaults;
  defaults.temperature = generation.temperature.value_or(defaults.temperature);
  defaults.top_k = generation.top_k.value_or(defaults.top_k);
  defaults.top_p = generation.top_p.value_or(defaults.top_p);
  defaults.min_p = generation.min_p.value_or(defaults.min_p);
  defaults.repetition_penalty = generation.repetition_penalty.value_or(defaults.repetition_penalty);
  defaults.end_ids = generation.eos_ids;
  return defaults;
}

// "models/llama/" -> "llama".
std::string NameOfFolder(const std::string& folder) {
  const std::filesystem::path path = std::filesystem::path(folder).lexically_normal();
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

void Describe(const ServerConfig& config, const ModelConfig& model, const ModelText& text,
              ServerParts* parts) {
  orrery::v1::GetModelResponse* out = &parts->model;
  out->set_model(NameOfFolder(config.model));
  const absl::string_view family = NameOf(model.family);
  out->set_architecture(std::string(family));
  out->set_has_chat_template(text.has_chat_template());
  out->set_model_digest(ModelDigest(config.model));
  parts->config_digest = ConfigDigest(config.model);
  out->set_tokenizer_digest(text.tokenizer().digest());
  for (const TokenId id : parts->defaults.end_ids) out->add_end_token_ids(static_cast<uint32_t>(id));
  const auto vocab = static_cast<TokenId>(model.vocab_size);
  for (TokenId id = 0; id < vocab; ++id) {
    const bool named = id < text.tokenizer().vocab_size() && !text.tokenizer().TokenBytes(id).empty();
    if (!named || text.tokenizer().IsSpecial(id)) out->add_special_token_ids(static_cast<uint32_t>(id));
  }
  orrery::v1::Sampling* sampling = out->mutable_default_sampling();
  sampling->set_temperature(parts->defaults.temperature);
  sampling->set_top_k(parts->defaults.top_k);
  sampling->set_top_p(parts->defaults.top_p);
  sampling->set_min_p(parts->defaults.min_p);
  sampling->set_repetition_penalty(parts->defaults.repetition_penalty);
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
  const EngineOptions options = MakeEngineOptions(config);
  auto plan = PlanEngine(options);
  if (!plan.ok()) return plan.status();
  auto engines = LoadCpuEngines(options);
  if (!engines.ok()) return engines.status();
  for (auto& engine : *engines) parts->engine.executors.push_back(std::move(engine));
  parts->model.set_backend("cpu");
  const auto name = [](DType type) {
    const auto text = NameOf(type);
    return std::string(text.data(), text.size());
  };
  parts->model.set_dtype(name(plan->dtype));
  parts->model.set_weights(name(plan->weights));
  parts->model.set_kv_dtype(name(plan->kv_dtype));
  parts->hardware =
      absl::StrCat(Processor(), " ", std::thread::hardware_concurrency(), " cores ", config.threads,
                   " threads ", name(plan->dtype), " ", name(plan->weights), " ", name(plan->kv_dtype));
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ReadHashKey(const std::string& path) {
  if (path.empty()) return RandomWord();
  std::ifstream file(path, std::ios::binary);
  std::string secret(kLongestSecret + 1, '\0');
  file.read(secret.data(), static_cast<std::streamsize>(secret.size()));
  if (!file.eof() && !file)
    return absl::InvalidArgumentError(absl::StrCat("--hash-key-file: cannot read '", path, "'"));
  secret.resize(static_cast<size_t>(file.gcount()));
  if (secret.size() <= kLongestSecret) absl::StripTrailingAsciiWhitespace(&secret);
  if (secret.size() < kShortestSecret || secret.size() > kLongestSecret) {
    return absl::InvalidArgumentError(absl::StrCat("--hash-key-file: ", path, " must hold ", kShortestSecret,
                                                   " to ", kLongestSecret, " bytes, not ", secret.size()));
  }
  return SipHash24(0, 0).FinishWith(secret).low;
}

absl::Status CheckModelAndBackend(const ServerConfig& config) {
  if (config.backend == "cuda") return absl::InvalidArgumentError("--backend: cuda: built without CUDA");
  if (config.model.empty()) return absl::InvalidArgumentError("--model: needs a checkpoint folder");
  if (std::error_code error; !std::filesystem::is_directory(config.model, error)) {
    return absl::InvalidArgumentError(absl::StrCat("--model: '", config.model, "' is not a folder"));
  }
  return CheckPolicies(config);
}

absl::Status CheckRole(const ServerConfig& config) {
  const bool addresses = !config.worker_address.empty() || !config.worker_dns.empty();
  if (config.role == "router" && !addresses) {
    return absl::InvalidArgumentError("--role: a router needs --worker-address or --worker-dns");
  }
  if (config.role != "router" && addresses) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--worker-", config.worker_address.empty() ? "dns" : "address", ": needs --role router"));
  }
  return NewMembership(config.worker_address, config.worker_dns).status();
}

}  // namespace

absl::StatusOr<ServerParts> LoadParts(const ServerConfig& config) {
  if (absl::Status status = CheckModelAndBackend(config); !status.ok()) return status;
  if (absl::Status status = CheckRole(config); !status.ok()) return status;
  auto model = ReadModelConfig(config.model);
  if (!model.ok()) return model.status();
  auto generation = ReadGenerationConfig(config.model, *model);
  if (!generation.ok()) return generation.status();
  auto text = ModelText::Load(config.model);
  if (!text.ok()) return text.status();
  if ((*text)->tokenizer().vocab_size() > model->vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(config.model, ": the tokenizer has ids up to ",
                                                   (*text)->tokenizer().vocab_size() - 1,
                                                   ", the model's vocab_size is ", model->vocab_size));
  }
  ServerParts parts;
  parts.defaults = MakeDefaults(*generation);
  auto hash_key = ReadHashKey(config.hash_key_file);
  if (!hash_key.ok()) return hash_key.status();
  if (absl::Status status = LoadEngine(config, *model, &parts); !status.ok()) return status;
  parts.engine.hash_key = *hash_key;
  Describe(config, *model, **text, &parts);
  parts.codec = *std::move(text);
  return parts;
}

absl::StatusOr<std::string> DescribePlan(const ServerConfig& config) {
  if (absl::Status status = CheckModelAndBackend(config); !status.ok()) return status;
  if (absl::Status status = CheckRole(config); !status.ok()) return status;
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
  auto plan = PlanEngine(MakeEngineOptions(config));
  if (!plan.ok()) return plan.status();
  return absl::StrCat(plan->ToString(), "instructions: ", std::string(NameOf(ActiveIsa())), "\n");
}

}  // namespace orrery
