// generation_config.json: the model's end ids and default sampling. The file is optional; a request's own
// values win over it, and config.json's end ids are used where it names none.
#ifndef ORRERY_ENGINE_CHECKPOINT_GENERATION_CONFIG_H_
#define ORRERY_ENGINE_CHECKPOINT_GENERATION_CONFIG_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/checkpoint/model_config.h"
#include "scheduler/base/ids.h"

namespace orrery {

struct GenerationConfig {
  std::vector<TokenId> eos_ids;  // ascending
  // Not given: the server's own default. do_sample false in the file is temperature 0.
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
};

absl::StatusOr<GenerationConfig> ParseGenerationConfig(const nlohmann::json& file, const ModelConfig& model,
                                                       absl::string_view what);
// A folder without the file gives config.json's end ids and no defaults.
absl::StatusOr<GenerationConfig> ReadGenerationConfig(const std::string& model_dir, const ModelConfig& model);

}  // namespace orrery

#endif  // ORRERY_ENGINE_CHECKPOINT_GENERATION_CONFIG_H_
