#include "tests/engine/reference_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace orrery::testing {
namespace {

using nlohmann::json;

double Decode16(uint16_t bits, bool bf16) {
  if (bf16) {
    const uint32_t wide = uint32_t{bits} << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
  }
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return bits >> 15 ? -magnitude : magnitude;
}

void ReadTensors(const std::string& path, std::map<std::string, std::vector<double>>* out) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  const json header = json::parse(bytes.substr(8, header_bytes));
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const std::string dtype = entry["dtype"];
    const size_t width = dtype == "F32" ? 4 : 2;
    const char* data = bytes.data() + 8 + header_bytes + entry["data_offsets"][0].get<size_t>();
    const char* end = bytes.data() + 8 + header_bytes + entry["data_offsets"][1].get<size_t>();
    std::vector<double>& values = (*out)[name];
    for (; data < end; data += width) {
      if (width == 4) {
        float value;
        std::memcpy(&value, data, 4);
        values.push_back(value);
      } else {
        uint16_t value;
        std::memcpy(&value, data, 2);
        values.push_back(Decode16(value, dtype == "BF16"));
      }
    }
  }
}

double Dot(const double* a, const double* b, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

ReferenceModel::ReferenceModel(const std::string& dir) {
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    if (entry.path().extension() == ".safetensors") ReadTensors(entry.path().string(), &tensors_);
  }
  if (tensors_.empty()) throw std::runtime_error("no safetensors in " + dir);
  std::ifstream file(dir + "/config.json");
  const json config = json::parse(file);
  layers_ = config["num_hidden_layers"];
  hidden_ = config["hidden_size"];
  heads_ = config["num_attention_heads"];
  kv_heads_ = config.value("num_key_value_heads", heads_);
  dim_ = config.contains("head_dim") && !config["head_dim"].is_null() ? config["head_dim"].get<int64_t>()
                                                                      : hidden_ / heads_;
  vocab_ = config["vocab_size"];
  eps_ = config["rms_norm_eps"];
  tied_ = config.value("tie_word_embeddings", false);
  qk_norm_ = config["model_type"] == "qwen3";
  theta_ = config.value("rope_theta", 10000.0);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!config.contains(key) || config[key].is_null()) continue;
    const json& rope = config[key];
    theta_ = rope.value("rope_theta", theta_);
    rope_type_ = rope.value("rope_type", rope.value("type", "default"));
    factor_ = rope.value("factor", 1.0);
    low_ = rope.value("low_freq_factor", 1.0);
    high_ = rope.value("high_freq_factor", 4.0);
    original_ = rope.value("original_max_position_embeddings", 8192.0);
  }
}

const ReferenceModel::Vector* ReferenceModel::Find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

ReferenceModel::Vector ReferenceModel::Linear(const std::string& name, const Vector& x) const {
  const Vector& weight = Get(name + ".weight");
  Vector y(weight.size() / x.size());
  for (size_t row = 0; row < y.size(); ++row) {
    y[row] = Dot(&weight[row * x.size()], x.data(), x.size());
  }
  if (const Vector* bias = Find(name + ".bias"); bias != nullptr) {
    for (size_t row = 0; row < y.size(); ++row) y[row] += (*bias)[row];
  }
  return y;
}

ReferenceModel::Vector ReferenceModel::Norm(const Vector& x, const Vector& gain) const {
  double sum = 0;
  for (const double v : x) sum += v * v;
  const double scale = 1.0 / std::sqrt(sum / static_cast<double>(x.size()) + eps_);
  Vector y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * scale * gain[i];
  return y;
}

double ReferenceModel::InverseFrequency(int64_t j) const {
  const double pi = std::acos(-1.0);
  const double inverse = 1.0 / std::pow(theta_, 2.0 * static_cast<double>(j) / static_cast<double>(dim_));
  if (rope_type_ == "linear") return inverse / factor_;
  if (rope_type_ != "llama3") return inverse;
  const double wavelength = 2 * pi / inverse;
  if (wavelength < original_ / high_) return inverse;
  if (wavelength > original_ / low_) return inverse / factor_;
  const double smooth = (original_ / wavelength - low_) / (high_ - low_);
  return (1 - smooth) * inverse / factor_ + smooth * inverse;
}

void ReferenceModel::Rotate(double* head, int64_t position) const {
  for (int64_t j = 0; j < dim_ / 2; ++j) {
    const double angle = static_cast<double>(position) * InverseFrequency(j);
    const double a = head[j], b = head[j + dim_ / 2];
    head[j] = a * std::cos(angle) - b * std::sin(angle);
    head[j + dim_ / 2] = b * std::cos(angle) + a * std::sin(angle);
  }
}

ReferenceModel::Run::Run(const ReferenceModel& model)
    : model_(model), keys_(static_cast<size_t>(model.layers_)), values_(static_cast<size_t>(model.layers_)) {}

std::vector<double> ReferenceModel::Run::Feed(int32_t token) {
  const ReferenceModel& m = model_;
  const Vector& table = m.Get("model.embed_tokens.weight");
  Vector h(table.begin() + token * m.hidden_, table.begin() + (token + 1) * m.hidden_);
  for (int64_t layer = 0; layer < m.layers_; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const Vector x = m.Norm(h, m.Get(prefix + "input_layernorm.weight"));
    Vector q = m.Linear(prefix + "self_attn.q_proj", x), k = m.Linear(prefix + "self_attn.k_proj", x);
    const Vector v = m.Linear(prefix + "self_attn.v_proj", x);
    const auto prepare = [&](Vector& heads, const std::string& gain) {
      for (size_t first = 0; first < heads.size(); first += static_cast<size_t>(m.dim_)) {
        if (m.qk_norm_) {
          const Vector normed =
              m.Norm({heads.begin() + first, heads.begin() + first + m.dim_}, m.Get(prefix + gain));
          std::copy(normed.begin(), normed.end(), heads.begin() + first);
        }
        m.Rotate(&heads[first], position_);
      }
    };
    prepare(q, "self_attn.q_norm.weight");
    prepare(k, "self_attn.k_norm.weight");
    Vector& keys = keys_[static_cast<size_t>(layer)];
    Vector& values = values_[static_cast<size_t>(layer)];
    std::transform(k.begin(), k.end(), std::back_inserter(keys), m.kept_);
    std::transform(v.begin(), v.end(), std::back_inserter(values), m.kept_);
    Vector attended(q.size());
    for (int64_t head = 0; head < m.heads_; ++head) {
      const int64_t kv_head = head / (m.heads_ / m.kv_heads_);
      Vector weight(static_cast<size_t>(position_ + 1));
      double largest = -1e300, sum = 0;
      const auto size = static_cast<size_t>(m.dim_);
      const auto at = [&](int64_t p) { return static_cast<size_t>((p * m.kv_heads_ + kv_head) * m.dim_); };
      for (int64_t p = 0; p <= position_; ++p) {
        const double dot = Dot(&q[static_cast<size_t>(head * m.dim_)], &keys[at(p)], size);
        weight[static_cast<size_t>(p)] = dot / std::sqrt(static_cast<double>(m.dim_));
        largest = std::max(largest, weight[static_cast<size_t>(p)]);
      }
      for (double& w : weight) sum += w = std::exp(w - largest);
      for (int64_t p = 0; p <= position_; ++p) {
        const double share = weight[static_cast<size_t>(p)] / sum;
        const double* value = &values[at(p)];
        double* out = &attended[static_cast<size_t>(head * m.dim_)];
        for (size_t d = 0; d < size; ++d) out[d] += share * value[d];
      }
    }
    const Vector o = m.Linear(prefix + "self_attn.o_proj", attended);
    for (size_t i = 0; i < h.size(); ++i) h[i] += o[i];
    const Vector y = m.Norm(h, m.Get(prefix + "post_attention_layernorm.weight"));
    Vector gate = m.Linear(prefix + "mlp.gate_proj", y);
    const Vector up = m.Linear(prefix + "mlp.up_proj", y);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
    const Vector down = m.Linear(prefix + "mlp.down_proj", gate);
    for (size_t i = 0; i < h.size(); ++i) h[i] += down[i];
  }
  ++position_;
  return m.Linear(m.tied_ ? "model.embed_tokens" : "lm_head", m.Norm(h, m.Get("model.norm.weight")));
}

std::vector<double> ReferenceModel::AllLogits(const std::vector<int32_t>& tokens) const {
  Run run(*this);
  std::vector<double> all;
  for (const int32_t token : tokens) {
    const std::vector<double> logits = run.Feed(token);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

std::vector<int32_t> ReferenceModel::Greedy(const std::vector<int32_t>& prompt, int count) const {
  Run run(*this);
  std::vector<double> logits;
  for (const int32_t token : prompt) logits = run.Feed(token);
  std::vector<int32_t> output;
  while (static_cast<int>(output.size()) < count) {
    output.push_back(static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    logits = run.Feed(output.back());
  }
  return output;
}

}  // namespace orrery::testing
