// config.json of a checkpoint, understood: the dense decoder families Llama, Mistral, Qwen2 and Qwen3. What
// the engine would compute wrongly is refused by name (other architectures, experts, quantised weights,
// sliding windows in effect, other rope scalings) instead of being ignored.
#ifndef ORRERY_ENGINE_CHECKPOINT_MODEL_CONFIG_H_
#define ORRERY_ENGINE_CHECKPOINT_MODEL_CONFIG_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scheduler/base/ids.h"

namespace orrery {

enum class ModelFamily : uint8_t { kLlama, kMistral, kQwen2, kQwen3 };
absl::string_view NameOf(ModelFamily family);

// Rotary embedding, half-split pairs (x_j, x_{j + head_dim/2}).
struct RopeConfig {
  enum class Scaling : uint8_t { kNone, kLinear, kLlama3 };
  double theta = 10000.0;
  Scaling scaling = Scaling::kNone;
  double factor = 1.0;                    // kLinear, kLlama3
  double low_freq_factor = 1.0;           // kLlama3
  double high_freq_factor = 4.0;          // kLlama3
  int64_t original_max_positions = 8192;  // kLlama3
};

struct ModelConfig {
  ModelFamily family = ModelFamily::kLlama;
  int64_t num_layers = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;  // divides num_heads
  int64_t head_dim = 0;      // even
  int64_t vocab_size = 0;
  int64_t max_positions = 0;
  float rms_norm_eps = 1e-6f;
  RopeConfig rope;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;
  bool tie_embeddings = false;
  std::vector<TokenId> eos_ids;  // ascending

  int64_t q_size() const { return num_heads * head_dim; }
  int64_t kv_size() const { return num_kv_heads * head_dim; }
  int64_t num_parameters() const;
};

// `what` (usually the path) begins every error.
absl::StatusOr<ModelConfig> ParseModelConfig(const nlohmann::json& config, absl::string_view what);
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& model_dir);

// Inverse frequencies of the rotation after scaling, [head_dim / 2]: position p turns pair j by p * inv[j].
std::vector<double> RopeInverseFrequencies(const RopeConfig& rope, int64_t head_dim);

}  // namespace orrery

#endif  // ORRERY_ENGINE_CHECKPOINT_MODEL_CONFIG_H_
