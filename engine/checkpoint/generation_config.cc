#include "engine/checkpoint/generation_config.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/checkpoint/json.h"

namespace orrery {
namespace {

using nlohmann::json;

absl::Status OptionalNumber(const JsonFields& fields, const char* key, double low, double high,
                            std::optional<float>* out) {
  if (!fields.Has(key)) return absl::OkStatus();
  absl::StatusOr<double> value = fields.Number(key, low, high);
  if (!value.ok()) return value.status();
  *out = static_cast<float>(*value);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GenerationConfig> ParseGenerationConfig(const json& file, const ModelConfig& model,
                                                       absl::string_view what) {
  const JsonFields fields(file, what);
  GenerationConfig config;
  absl::StatusOr<std::vector<TokenId>> eos = fields.TokenIds("eos_token_id", model.vocab_size);
  if (!eos.ok()) return eos.status();
  config.eos_ids = eos->empty() ? model.eos_ids : *std::move(eos);

  absl::Status status = OptionalNumber(fields, "temperature", 0.0, 100.0, &config.temperature);
  status.Update(OptionalNumber(fields, "top_p", 0.0, 1.0, &config.top_p));
  status.Update(OptionalNumber(fields, "min_p", 0.0, 1.0, &config.min_p));
  status.Update(OptionalNumber(fields, "repetition_penalty", 1e-3, 1e3, &config.repetition_penalty));
  if (!status.ok()) return status;
  if (config.top_p == 0.0f) config.top_p.reset();  // written by some tools for "off"
  if (fields.Has("top_k")) {
    absl::StatusOr<int64_t> top_k = fields.Int("top_k", -1, INT32_MAX);
    if (!top_k.ok()) return top_k.status();
    config.top_k = *top_k < 0 ? 0 : static_cast<int32_t>(*top_k);
  }
  if (fields.Has("do_sample")) {
    absl::StatusOr<bool> do_sample = fields.Bool("do_sample", true);
    if (!do_sample.ok()) return do_sample.status();
    if (!*do_sample) config.temperature = 0.0f;
  }
  return config;
}

absl::StatusOr<GenerationConfig> ReadGenerationConfig(const std::string& model_dir,
                                                      const ModelConfig& model) {
  const std::string path = absl::StrCat(model_dir, "/generation_config.json");
  absl::StatusOr<json> file = ReadJsonObject(path, {});
  if (absl::IsNotFound(file.status())) {
    GenerationConfig config;
    config.eos_ids = model.eos_ids;
    return config;
  }
  if (!file.ok()) return file.status();
  return ParseGenerationConfig(*file, model, path);
}

}  // namespace orrery
