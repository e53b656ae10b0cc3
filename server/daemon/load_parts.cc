#include "server/daemon/load_parts.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/checkpoint/generation_config.h"
#include "engine/checkpoint/model_config.h"
#include "scheduler/base/hash.h"
#include "server/base/random_word.h"
#include "server/daemon/load_engine.h"
#include "server/daemon/model_digest.h"
#include "server/daemon/model_text.h"

namespace orrery {
namespace {

constexpr size_t kShortestSecret = 16, kLongestSecret = 4096;

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

absl::Status CheckModel(const ServerConfig& config) {
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

absl::Status CheckModelAndRole(const ServerConfig& config) {
  if (absl::Status status = CheckModel(config); !status.ok()) return status;
  return CheckRole(config);
}

}  // namespace

absl::StatusOr<ServerParts> LoadParts(const ServerConfig& config) {
  if (absl::Status status = CheckModelAndRole(config); !status.ok()) return status;
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
  if (absl::Status status = CheckModelAndRole(config); !status.ok()) return status;
  return DescribeEngine(config);
}

}  // namespace orrery
