#include "engine/checkpoint/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/checkpoint/json.h"

namespace orrery {
namespace {

using nlohmann::json;

// Far above every released dense model and far below where a product of three overflows 63 bits.
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHidden = 65536;
constexpr int64_t kMaxIntermediate = 1 << 20;
constexpr int64_t kMaxHeads = 1024;
constexpr int64_t kMaxHeadDim = 512;
constexpr int64_t kMaxVocab = 1 << 22;
constexpr int64_t kMaxPositions = int64_t{1} << 24;

struct FamilyRow {
  absl::string_view model_type, architecture;
  ModelFamily family;
};
constexpr std::array<FamilyRow, 4> kFamilies = {{
    {"llama", "LlamaForCausalLM", ModelFamily::kLlama},
    {"mistral", "MistralForCausalLM", ModelFamily::kMistral},
    {"qwen2", "Qwen2ForCausalLM", ModelFamily::kQwen2},
    {"qwen3", "Qwen3ForCausalLM", ModelFamily::kQwen3},
}};

// Assigns the value or leaves the function with its status.
#define ORRERY_ASSIGN(lhs, expression)                       \
  do {                                                       \
    auto assigned_ = (expression);                           \
    if (!assigned_.ok()) return assigned_.status();          \
    lhs = static_cast<decltype(lhs)>(*std::move(assigned_)); \
  } while (false)

absl::Status ParseFamily(const JsonFields& fields, ModelConfig* config) {
  std::string model_type, architecture;
  ORRERY_ASSIGN(model_type, fields.String("model_type", ""));
  if (const json* list = fields.Find("architectures"); list != nullptr) {
    if (!list->is_array() || list->size() != 1 || !(*list)[0].is_string()) {
      return fields.Error("architectures", "must be a list of one name");
    }
    architecture = (*list)[0].get<std::string>();
  }
  // Quantised weights are known by other dtypes and names: say so rather than complain about those.
  if (fields.Has("quantization_config")) {
    std::string method = "unnamed";
    if (const json* q = fields.Find("quantization_config"); q->is_object()) {
      ORRERY_ASSIGN(method, JsonFields(*q, "quantization_config").String("quant_method", "unnamed"));
    }
    return fields.Error("quantization_config",
                        absl::StrCat("(", method.substr(0, 64), ") is not supported: quantised checkpoint"));
  }
  for (const FamilyRow& row : kFamilies) {
    if (architecture.empty() ? row.model_type == model_type : row.architecture == architecture) {
      if (!model_type.empty() && model_type != row.model_type) {
        return fields.Error("model_type",
                            absl::StrCat("'", model_type.substr(0, 64), "' does not go with ", architecture));
      }
      config->family = row.family;
      return absl::OkStatus();
    }
  }
  return fields.Error(architecture.empty() ? "model_type" : "architectures",
                      absl::StrCat("'", (architecture.empty() ? model_type : architecture).substr(0, 64),
                                   "' is not supported (LlamaForCausalLM, MistralForCausalLM, "
                                   "Qwen2ForCausalLM, Qwen3ForCausalLM)"));
}

absl::Status ParseSizes(const JsonFields& fields, ModelConfig* config) {
  ORRERY_ASSIGN(config->num_layers, fields.Int("num_hidden_layers", 1, kMaxLayers));
  ORRERY_ASSIGN(config->hidden_size, fields.Int("hidden_size", 1, kMaxHidden));
  ORRERY_ASSIGN(config->intermediate_size, fields.Int("intermediate_size", 1, kMaxIntermediate));
  ORRERY_ASSIGN(config->num_heads, fields.Int("num_attention_heads", 1, kMaxHeads));
  ORRERY_ASSIGN(config->num_kv_heads, fields.Int("num_key_value_heads", 1, kMaxHeads, config->num_heads));
  if (config->num_heads % config->num_kv_heads != 0) {
    return fields.Error("num_key_value_heads",
                        absl::StrCat("must divide num_attention_heads (", config->num_heads, ")"));
  }
  // Qwen3 states its head size in the class default where the file leaves it out.
  const int64_t derived =
      config->family == ModelFamily::kQwen3 ? 128 : config->hidden_size / config->num_heads;
  ORRERY_ASSIGN(config->head_dim, fields.Int("head_dim", 2, kMaxHeadDim, derived));
  if (config->head_dim < 2 || config->head_dim > kMaxHeadDim || config->head_dim % 2 != 0) {
    return fields.Error("head_dim",
                        absl::StrCat("(", config->head_dim, ") must be even and in [2, ", kMaxHeadDim, "]"));
  }
  ORRERY_ASSIGN(config->vocab_size, fields.Int("vocab_size", 1, kMaxVocab));
  ORRERY_ASSIGN(config->max_positions, fields.Int("max_position_embeddings", 1, kMaxPositions, 2048));
  ORRERY_ASSIGN(config->rms_norm_eps, fields.Number("rms_norm_eps", 1e-12, 1.0, 1e-6));
  return absl::OkStatus();
}

absl::Status ParseSwitches(const JsonFields& fields, ModelConfig* config) {
  std::string activation;
  ORRERY_ASSIGN(activation, fields.String("hidden_act", "silu"));
  if (activation != "silu" && activation != "swish") {
    return fields.Error("hidden_act",
                        absl::StrCat("'", activation.substr(0, 64), "' is not supported (silu)"));
  }
  bool attention_bias = false;
  ORRERY_ASSIGN(attention_bias, fields.Bool("attention_bias", false));
  ORRERY_ASSIGN(config->mlp_bias, fields.Bool("mlp_bias", false));
  ORRERY_ASSIGN(config->tie_embeddings, fields.Bool("tie_word_embeddings", false));
  const ModelFamily family = config->family;
  config->qkv_bias = family == ModelFamily::kQwen2 || attention_bias;
  config->o_bias = family != ModelFamily::kQwen2 && attention_bias;
  config->qk_norm = family == ModelFamily::kQwen3;
  if (config->mlp_bias && family != ModelFamily::kLlama) {
    return fields.Error("mlp_bias", absl::StrCat("is not a field of ", NameOf(family)));
  }
  for (const char* experts : {"num_experts", "num_local_experts", "n_routed_experts"}) {
    int64_t count = 0;
    ORRERY_ASSIGN(count, fields.Int(experts, 0, INT64_MAX, 0));
    if (count > 0) return fields.Error(experts, "is not supported: mixture of experts");
  }
  // A window counts only if it is in use and smaller than the context. Mistral uses it whenever it is given,
  // the Qwens when a switch says so.
  int64_t window = 0;
  ORRERY_ASSIGN(window, fields.Int("sliding_window", 0, INT64_MAX, 0));
  bool used = family == ModelFamily::kMistral;
  ORRERY_ASSIGN(used, fields.Bool("use_sliding_window", used));
  if (const json* kinds = fields.Find("layer_types"); kinds != nullptr) {
    used = kinds->is_array() && std::any_of(kinds->begin(), kinds->end(), [](const json& kind) {
             return !kind.is_string() || kind.get_ref<const std::string&>() != "full_attention";
           });
    if (used && window == 0) return fields.Error("layer_types", "names a layer that is not full_attention");
  }
  if (used && window > 0 && window < config->max_positions) {
    return fields.Error("sliding_window", absl::StrCat("of ", window, " tokens is not supported (context ",
                                                       config->max_positions, ")"));
  }
  return absl::OkStatus();
}

// rope_theta stands at top level in older files and inside rope_parameters in newer ones; rope_scaling and
// rope_parameters, type and rope_type are old and new names.
absl::Status ParseRope(const JsonFields& fields, absl::string_view what, ModelConfig* config) {
  RopeConfig& rope = config->rope;
  ORRERY_ASSIGN(rope.theta, fields.Number("rope_theta", 1.0, 1e12, 10000.0));
  const json* parameters = nullptr;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const json* found = nullptr;
    ORRERY_ASSIGN(found, fields.Object(key));
    if (found == nullptr) continue;
    if (parameters != nullptr && *parameters != *found) {
      return fields.Error(key, "and rope_scaling differ: one of the two must go");
    }
    parameters = found;
  }
  if (parameters == nullptr) return absl::OkStatus();

  const std::string inner_what = absl::StrCat(what, ": rope parameters");
  const JsonFields inner(*parameters, inner_what);
  ORRERY_ASSIGN(rope.theta, inner.Number("rope_theta", 1.0, 1e12, rope.theta));
  double partial = 1.0;
  ORRERY_ASSIGN(partial, inner.Number("partial_rotary_factor", 0.0, 1.0, 1.0));
  if (partial != 1.0) return inner.Error("partial_rotary_factor", "other than 1 is not supported");
  std::string type;
  ORRERY_ASSIGN(type, inner.String("type", "default"));
  ORRERY_ASSIGN(type, inner.String("rope_type", type));
  if (type == "default") return absl::OkStatus();
  if (type != "linear" && type != "llama3") {
    return inner.Error("rope_type",
                       absl::StrCat("'", type.substr(0, 64), "' is not supported (linear, llama3)"));
  }
  ORRERY_ASSIGN(rope.factor, inner.Number("factor", 1.0, 1e6));
  if (type == "linear") {
    rope.scaling = RopeConfig::Scaling::kLinear;
    return absl::OkStatus();
  }
  rope.scaling = RopeConfig::Scaling::kLlama3;
  ORRERY_ASSIGN(rope.low_freq_factor, inner.Number("low_freq_factor", 1e-6, 1e6));
  ORRERY_ASSIGN(rope.high_freq_factor, inner.Number("high_freq_factor", 1e-6, 1e6));
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    return inner.Error("high_freq_factor", "must be larger than low_freq_factor");
  }
  ORRERY_ASSIGN(rope.original_max_positions,
                inner.Int("original_max_position_embeddings", 1, kMaxPositions, config->max_positions));
  return absl::OkStatus();
}

// The tensors say what they are stored in; a type of quantised checkpoints is refused by name before that.
absl::Status CheckDtypeAndParseIds(const JsonFields& fields, ModelConfig* config) {
  std::string dtype;
  ORRERY_ASSIGN(dtype, fields.String("torch_dtype", "float32"));
  ORRERY_ASSIGN(dtype, fields.String("dtype", dtype));
  if (dtype != "float32" && dtype != "bfloat16" && dtype != "float16") {
    return fields.Error("torch_dtype", absl::StrCat("'", dtype.substr(0, 64),
                                                    "' is not supported (float32, bfloat16, float16)"));
  }
  ORRERY_ASSIGN(config->eos_ids, fields.TokenIds("eos_token_id", config->vocab_size));
  return absl::OkStatus();
}

}  // namespace

absl::string_view NameOf(ModelFamily family) {
  for (const FamilyRow& row : kFamilies) {
    if (row.family == family) return row.model_type;
  }
  return "?";
}

int64_t ModelConfig::num_parameters() const {
  const int64_t attention = hidden_size * (q_size() + 2 * kv_size()) + q_size() * hidden_size;
  const int64_t mlp = 3 * hidden_size * intermediate_size;
  const int64_t small = 2 * hidden_size + (qk_norm ? 2 * head_dim : 0) +
                        (qkv_bias ? q_size() + 2 * kv_size() : 0) + (o_bias ? hidden_size : 0) +
                        (mlp_bias ? 2 * intermediate_size + hidden_size : 0);
  return num_layers * (attention + mlp + small) + hidden_size +
         vocab_size * hidden_size * (tie_embeddings ? 1 : 2);
}

absl::StatusOr<ModelConfig> ParseModelConfig(const json& object, absl::string_view what) {
  const JsonFields fields(object, what);
  ModelConfig config;
  if (absl::Status status = ParseFamily(fields, &config); !status.ok()) return status;
  if (absl::Status status = ParseSizes(fields, &config); !status.ok()) return status;
  if (absl::Status status = ParseSwitches(fields, &config); !status.ok()) return status;
  if (absl::Status status = ParseRope(fields, what, &config); !status.ok()) return status;
  if (absl::Status status = CheckDtypeAndParseIds(fields, &config); !status.ok()) return status;
  return config;
}

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& model_dir) {
  const std::string path = absl::StrCat(model_dir, "/config.json");
  absl::StatusOr<json> object = ReadJsonObject(path, {});
  if (!object.ok()) return object.status();
  return ParseModelConfig(*object, path);
}

std::vector<double> RopeInverseFrequencies(const RopeConfig& rope, int64_t head_dim) {
  std::vector<double> inverse(static_cast<size_t>(head_dim / 2));
  const auto original = static_cast<double>(rope.original_max_positions);
  for (size_t j = 0; j < inverse.size(); ++j) {
    const double base = std::pow(rope.theta, -2.0 * static_cast<double>(j) / static_cast<double>(head_dim));
    inverse[j] = base;
    if (rope.scaling == RopeConfig::Scaling::kLinear) inverse[j] = base / rope.factor;
    if (rope.scaling != RopeConfig::Scaling::kLlama3) continue;
    // Short waves stay, long ones are stretched by the factor, those between are blended.
    const double wavelength = 2.0 * std::numbers::pi / base;
    if (wavelength > original / rope.low_freq_factor) {
      inverse[j] = base / rope.factor;
    } else if (wavelength >= original / rope.high_freq_factor) {
      const double blend =
          (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
      inverse[j] = (1.0 - blend) * base / rope.factor + blend * base;
    }
  }
  return inverse;
}

}  // namespace orrery
