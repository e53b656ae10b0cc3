#include "engine/model/weights.h"

#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace orrery {
namespace {

constexpr size_t kVectorAlignment = 64;

// Takes the tensors out of a checkpoint. The small vectors (gains, biases) are collected on the host and
// uploaded together, so layers first hold offsets into the collection.
class WeightLoader {
 public:
  WeightLoader(Backend& backend, const Checkpoint& checkpoint, DType type, DecoderWeights* out)
      : backend_(backend), checkpoint_(checkpoint), type_(type), out_(*out), config_(out->config) {}

  absl::Status Load() {
    out_.layers.resize(static_cast<size_t>(config_.num_layers));
    for (int64_t i = 0; i < config_.num_layers; ++i) {
      if (absl::Status status = LoadLayer(i); !status.ok()) return status;
    }
    if (absl::Status status = Vector("model.norm.weight", config_.hidden_size, &out_.final_gain);
        !status.ok()) {
      return status;
    }
    if (absl::Status status = LoadEmbeddings(); !status.ok()) return status;
    return UploadVectors();
  }

 private:
  absl::Status LoadLayer(int64_t index);
  absl::Status LoadBiases(const std::string& prefix, DecoderWeights::Layer& layer);
  absl::Status LoadEmbeddings();
  absl::Status UploadVectors();

  struct Part {
    std::string name;
    int64_t rows = 0;
  };
  absl::Status Packed(std::initializer_list<Part> parts, int64_t cols, MatrixKind kind,
                      std::unique_ptr<Matrix>* out);
  // Appends the named vectors, one behind the other, to the collection; *out points at the first.
  absl::Status Vectors(std::initializer_list<Part> parts, const float** out);
  absl::Status Vector(std::string name, int64_t size, const float** out) {
    return Vectors({{std::move(name), size}}, out);
  }

  struct Placed {
    const float** field;
    size_t offset;
  };

  Backend& backend_;
  const Checkpoint& checkpoint_;
  const DType type_;
  DecoderWeights& out_;
  const ModelConfig& config_;
  std::vector<float> collected_;
  std::vector<Placed> placed_;
};

absl::Status WeightLoader::Packed(std::initializer_list<Part> parts, int64_t cols, MatrixKind kind,
                                  std::unique_ptr<Matrix>* out) {
  std::vector<WeightView> views;
  for (const Part& part : parts) {
    absl::StatusOr<WeightView> view = checkpoint_.Weight(part.name, {part.rows, cols});
    if (!view.ok()) return view.status();
    views.push_back(*view);
  }
  absl::StatusOr<std::unique_ptr<Matrix>> matrix = backend_.Pack(views, type_, kind);
  if (!matrix.ok()) {
    const std::string names =
        absl::StrJoin(parts, "', '", [](std::string* to, const Part& part) { to->append(part.name); });
    return absl::Status(matrix.status().code(),
                        absl::StrCat("tensor '", names, "': ", matrix.status().message()));
  }
  out_.bytes += static_cast<int64_t>((*matrix)->bytes());
  *out = *std::move(matrix);
  return absl::OkStatus();
}

absl::Status WeightLoader::Vectors(std::initializer_list<Part> parts, const float** out) {
  placed_.push_back({out, collected_.size()});
  for (const Part& part : parts) {
    absl::StatusOr<WeightView> view = checkpoint_.Weight(part.name, {part.rows});
    if (!view.ok()) return view.status();
    const size_t offset = collected_.size();
    collected_.resize(offset + static_cast<size_t>(part.rows));
    CopyToF32(*view, 0, part.rows, collected_.data() + offset);
  }
  constexpr size_t kFloats = kVectorAlignment / sizeof(float);
  collected_.resize((collected_.size() + kFloats - 1) / kFloats * kFloats);
  return absl::OkStatus();
}

absl::Status WeightLoader::LoadLayer(int64_t index) {
  DecoderWeights::Layer& layer = out_.layers[static_cast<size_t>(index)];
  const std::string prefix = absl::StrCat("model.layers.", index, ".");
  const int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
  const int64_t q = config_.q_size(), kv = config_.kv_size();
  absl::Status status = Packed({{prefix + "self_attn.q_proj.weight", q},
                                {prefix + "self_attn.k_proj.weight", kv},
                                {prefix + "self_attn.v_proj.weight", kv}},
                               hidden, MatrixKind::kPlain, &layer.qkv);
  if (!status.ok()) return status;
  status = Packed({{prefix + "self_attn.o_proj.weight", hidden}}, q, MatrixKind::kPlain, &layer.o);
  if (!status.ok()) return status;
  status = Packed({{prefix + "mlp.gate_proj.weight", inner}, {prefix + "mlp.up_proj.weight", inner}}, hidden,
                  MatrixKind::kGated, &layer.gate_up);
  if (!status.ok()) return status;
  status = Packed({{prefix + "mlp.down_proj.weight", hidden}}, inner, MatrixKind::kPlain, &layer.down);
  if (!status.ok()) return status;
  status = Vector(prefix + "input_layernorm.weight", hidden, &layer.attention_gain);
  if (!status.ok()) return status;
  status = Vector(prefix + "post_attention_layernorm.weight", hidden, &layer.mlp_gain);
  if (!status.ok()) return status;
  return LoadBiases(prefix, layer);
}

absl::Status WeightLoader::LoadBiases(const std::string& prefix, DecoderWeights::Layer& layer) {
  const int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
  absl::Status status;
  if (config_.qk_norm) {
    status.Update(Vector(prefix + "self_attn.q_norm.weight", config_.head_dim, &layer.q_gain));
    status.Update(Vector(prefix + "self_attn.k_norm.weight", config_.head_dim, &layer.k_gain));
  }
  if (config_.qkv_bias) {
    status.Update(Vectors({{prefix + "self_attn.q_proj.bias", config_.q_size()},
                           {prefix + "self_attn.k_proj.bias", config_.kv_size()},
                           {prefix + "self_attn.v_proj.bias", config_.kv_size()}},
                          &layer.qkv_bias));
  }
  if (config_.o_bias) status.Update(Vector(prefix + "self_attn.o_proj.bias", hidden, &layer.o_bias));
  if (config_.mlp_bias) {
    status.Update(Vectors({{prefix + "mlp.gate_proj.bias", inner}, {prefix + "mlp.up_proj.bias", inner}},
                          &layer.gate_up_bias));
    status.Update(Vector(prefix + "mlp.down_proj.bias", hidden, &layer.down_bias));
  }
  return status;
}

// A tied table is resident once, packed as the output projection; rows are read back out of it. An untied one
// is kept as it is stored.
absl::Status WeightLoader::LoadEmbeddings() {
  const int64_t vocab = config_.vocab_size, hidden = config_.hidden_size;
  const std::string embedding = "model.embed_tokens.weight";
  if (config_.tie_embeddings) {
    return Packed({{embedding, vocab}}, hidden, MatrixKind::kPlain, &out_.head);
  }
  if (absl::Status status = Packed({{"lm_head.weight", vocab}}, hidden, MatrixKind::kPlain, &out_.head);
      !status.ok()) {
    return status;
  }
  absl::StatusOr<WeightView> view = checkpoint_.Weight(embedding, {vocab, hidden});
  if (!view.ok()) return view.status();
  absl::StatusOr<std::unique_ptr<Buffer>> buffer = backend_.Allocate(view->num_bytes());
  if (!buffer.ok()) return buffer.status();
  out_.embedding_buffer = *std::move(buffer);
  out_.embedding = {
      .data = out_.embedding_buffer->data(), .dtype = view->dtype, .rows = vocab, .cols = hidden};
  out_.bytes += static_cast<int64_t>(view->num_bytes());
  return backend_.Upload(view->data, view->num_bytes(), out_.embedding.data);
}

absl::Status WeightLoader::UploadVectors() {
  const size_t bytes = collected_.size() * sizeof(float);
  absl::StatusOr<std::unique_ptr<Buffer>> buffer = backend_.Allocate(bytes);
  if (!buffer.ok()) return buffer.status();
  out_.vectors = *std::move(buffer);
  out_.bytes += static_cast<int64_t>(bytes);
  for (const Placed& placed : placed_) {
    *placed.field = static_cast<const float*>(out_.vectors->data()) + placed.offset;
  }
  return backend_.Upload(collected_.data(), bytes, out_.vectors->data());
}

}  // namespace

absl::StatusOr<std::shared_ptr<const DecoderWeights>> DecoderWeights::Load(Backend& backend,
                                                                           const Checkpoint& checkpoint,
                                                                           const ModelConfig& config,
                                                                           DType type) {
  auto weights = std::make_shared<DecoderWeights>();
  weights->config = config;
  if (absl::Status status = WeightLoader(backend, checkpoint, type, weights.get()).Load(); !status.ok()) {
    return status;
  }
  return weights;
}

}  // namespace orrery
