#include "tests/engine/test_model.h"

#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <numbers>
#include <sstream>

#include "scheduler/base/random.h"

namespace orrery::testing {
namespace {

using nlohmann::json;

// A normal draw per element (Box and Muller).
std::vector<float> RandomNormal(RandomStream& random, int64_t count, float mean, float deviation) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - random.Uniform()));
    value =
        mean + deviation * static_cast<float>(radius * std::cos(2.0 * std::numbers::pi * random.Uniform()));
  }
  return values;
}

std::string Encode(const std::vector<float>& values, DType dtype) {
  std::string bytes;
  for (const float value : values) {
    if (dtype == DType::kF32) {
      bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
    } else {
      const uint16_t bits = dtype == DType::kBF16 ? BF16FromF32(value) : F16FromF32(value);
      bytes.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
    }
  }
  return bytes;
}

}  // namespace

TempDir::TempDir() {
  static std::atomic<int> counter{0};
  path_ = std::filesystem::temp_directory_path() /
          ("orrery-test-" + std::to_string(getpid()) + "-" + std::to_string(counter++));
  std::filesystem::create_directories(path_);
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string ReadFile(const std::string& path) {
  std::ostringstream out;
  out << std::ifstream(path, std::ios::binary).rdbuf();
  return out.str();
}

std::string SafetensorsImage(const std::string& header, const std::string& data) {
  std::string image;
  for (int i = 0; i < 8; ++i) image.push_back(static_cast<char>(header.size() >> (8 * i) & 0xff));
  return image + header + data;
}

std::string SafetensorsImage(const std::vector<NamedTensor>& tensors, DType dtype) {
  const char* name = dtype == DType::kF32 ? "F32" : dtype == DType::kBF16 ? "BF16" : "F16";
  json header;
  std::string data;
  for (const NamedTensor& tensor : tensors) {
    const size_t begin = data.size();
    data += Encode(tensor.values, dtype);
    header[tensor.name] = {{"dtype", name}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return SafetensorsImage(text, data);
}

json TinyConfig(const std::string& family) {
  static const std::map<std::string, std::string> kArchitectures = {{"llama", "LlamaForCausalLM"},
                                                                    {"mistral", "MistralForCausalLM"},
                                                                    {"qwen2", "Qwen2ForCausalLM"},
                                                                    {"qwen3", "Qwen3ForCausalLM"}};
  return {{"architectures", {kArchitectures.at(family)}},
          {"model_type", family},
          {"hidden_size", 48},
          {"intermediate_size", 80},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 6},
          {"num_key_value_heads", 2},
          {"head_dim", 16},
          {"vocab_size", 150},
          {"max_position_embeddings", 512},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"hidden_act", "silu"},
          {"tie_word_embeddings", false},
          {"bos_token_id", 1},
          {"eos_token_id", 2},
          {"torch_dtype", "float32"}};
}

std::vector<NamedTensor> RandomTensors(const json& config, uint64_t seed, float deviation) {
  RandomStream random(seed);
  std::vector<NamedTensor> tensors;
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols) {
    tensors.push_back({name, {rows, cols}, RandomNormal(random, rows * cols, 0.0f, deviation)});
  };
  const auto vector = [&](const std::string& name, int64_t n, float mean) {
    tensors.push_back({name, {n}, RandomNormal(random, n, mean, 0.2f)});
  };
  const std::string family = config["model_type"];
  const int64_t hidden = config["hidden_size"], ffn = config["intermediate_size"],
                vocab = config["vocab_size"];
  const int64_t dim = config["head_dim"];
  const int64_t q = config["num_attention_heads"].get<int64_t>() * dim;
  const int64_t kv = config["num_key_value_heads"].get<int64_t>() * dim;
  const bool bias = config.value("attention_bias", false);
  matrix("model.embed_tokens.weight", vocab, hidden);
  for (int64_t i = 0; i < config["num_hidden_layers"].get<int64_t>(); ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    vector(layer + "input_layernorm.weight", hidden, 1.0f);
    vector(layer + "post_attention_layernorm.weight", hidden, 1.0f);
    matrix(layer + "self_attn.q_proj.weight", q, hidden);
    matrix(layer + "self_attn.k_proj.weight", kv, hidden);
    matrix(layer + "self_attn.v_proj.weight", kv, hidden);
    matrix(layer + "self_attn.o_proj.weight", hidden, q);
    if (bias || family == "qwen2") {
      vector(layer + "self_attn.q_proj.bias", q, 0.0f);
      vector(layer + "self_attn.k_proj.bias", kv, 0.0f);
      vector(layer + "self_attn.v_proj.bias", kv, 0.0f);
    }
    if (bias && family != "qwen2") vector(layer + "self_attn.o_proj.bias", hidden, 0.0f);
    if (family == "qwen3") {
      vector(layer + "self_attn.q_norm.weight", dim, 1.0f);
      vector(layer + "self_attn.k_norm.weight", dim, 1.0f);
    }
    matrix(layer + "mlp.gate_proj.weight", ffn, hidden);
    matrix(layer + "mlp.up_proj.weight", ffn, hidden);
    matrix(layer + "mlp.down_proj.weight", hidden, ffn);
    if (config.value("mlp_bias", false)) {
      vector(layer + "mlp.gate_proj.bias", ffn, 0.0f);
      vector(layer + "mlp.up_proj.bias", ffn, 0.0f);
      vector(layer + "mlp.down_proj.bias", hidden, 0.0f);
    }
  }
  vector("model.norm.weight", hidden, 1.0f);
  if (!config["tie_word_embeddings"].get<bool>()) matrix("lm_head.weight", vocab, hidden);
  return tensors;
}

void WriteModel(const std::string& dir, const json& config, const std::vector<NamedTensor>& tensors,
                DType dtype) {
  WriteFile(dir + "/config.json", config.dump(1));
  WriteFile(dir + "/model.safetensors", SafetensorsImage(tensors, dtype));
}

void WriteShardedModel(const std::string& dir, const json& config, const std::vector<NamedTensor>& tensors,
                       DType dtype, int shards) {
  WriteFile(dir + "/config.json", config.dump(1));
  std::vector<std::vector<NamedTensor>> parts(static_cast<size_t>(shards));
  json map;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const size_t part = i % parts.size();
    parts[part].push_back(tensors[i]);
    map[tensors[i].name] = "part-" + std::to_string(part) + ".safetensors";
  }
  for (size_t part = 0; part < parts.size(); ++part) {
    WriteFile(dir + "/part-" + std::to_string(part) + ".safetensors", SafetensorsImage(parts[part], dtype));
  }
  WriteFile(dir + "/model.safetensors.index.json",
            json{{"metadata", json::object()}, {"weight_map", map}}.dump());
}

std::string SharedData(const std::string& relative) {
  std::string root;
  if (const char* shared = std::getenv("ORRERY_SHARED"); shared != nullptr) {
    root = shared;
  } else if (const char* source = std::getenv("ORRERY_SOURCE_DIR"); source != nullptr) {
    root = std::string(source) + "/../shared";
  } else {
    return "";
  }
  const std::string path = root + "/" + relative;
  return std::filesystem::exists(path) ? path : "";
}

std::string SourcePath(const std::string& relative) {
  const char* source = std::getenv("ORRERY_SOURCE_DIR");
  return source == nullptr ? "" : std::string(source) + "/" + relative;
}

}  // namespace orrery::testing
