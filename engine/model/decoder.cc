#include "engine/model/decoder.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/base/check.h"

namespace orrery {
namespace {

constexpr int64_t kAlignment = 64;
int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

void Decoder::FeedForward(const Layer& layer, const Tensor& hidden) {
  const Tensor normed = normed_.First(hidden.rows);
  const Tensor inner = inner_.First(hidden.rows);
  backend_.RmsNorm(normed, hidden, layer.mlp_gain, config_.rms_norm_eps);
  backend_.MatMul(inner, normed, *layer.gate_up, layer.gate_up_bias, nullptr);
  backend_.MatMul(hidden, inner, *layer.down, layer.down_bias, static_cast<const float*>(hidden.data));
}

void Decoder::Forward(int64_t rows, bool select, absl::Span<const KvLayer> kv) {
  const float eps = config_.rms_norm_eps;
  const Tensor hidden = hidden_.First(rows);
  const Tensor normed = normed_.First(rows);
  const Tensor qkv = qkv_.First(rows);
  const Tensor attended = attended_.First(rows);
  if (embedding_buffer_ == nullptr) {
    backend_.Embed(hidden, *head_);
  } else {
    backend_.Embed(hidden, embedding_);
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    backend_.RmsNorm(normed, hidden, layer.attention_gain, eps);
    backend_.MatMul(qkv, normed, *layer.qkv, layer.qkv_bias, nullptr);
    backend_.RopeAndWriteKv(qkv, layer.q_gain, layer.k_gain, eps, kv[i]);
    // From here on the last layer is for selected rows.
    const bool last = i + 1 == layers_.size();
    if (last && !select) return;
    backend_.PagedAttention(attended, qkv, kv[i]);
    if (last) return;
    backend_.MatMul(hidden, attended, *layer.o, layer.o_bias, static_cast<const float*>(hidden.data));
    FeedForward(layer, hidden);
  }
}

void Decoder::Select(absl::Span<const int32_t> rows) {
  ORRERY_DCHECK(static_cast<int64_t>(rows.size()) <= selected_.rows);
  const Layer& layer = layers_.back();
  const Tensor attended = gathered_.First(static_cast<int64_t>(rows.size()));
  const Tensor hidden = selected_.First(attended.rows);
  backend_.GatherRows(attended, attended_, rows);
  backend_.GatherRows(hidden, hidden_, rows);
  backend_.MatMul(hidden, attended, *layer.o, layer.o_bias, static_cast<const float*>(hidden.data));
  FeedForward(layer, hidden);
}

Tensor Decoder::Logits(int64_t begin, int64_t count) {
  ORRERY_DCHECK(count <= logits_.rows);
  const Tensor normed = normed_.First(count);
  const Tensor logits = logits_.First(count);
  backend_.RmsNorm(normed, selected_.Slice(begin, count), final_gain_, config_.rms_norm_eps);
  backend_.MatMul(logits, normed, *head_, nullptr, nullptr);
  return logits;
}

// Takes the tensors out of a checkpoint. The small vectors (gains, biases) are collected on the host and
// uploaded together, so layers first hold offsets into the collection.
class Decoder::Loader {
 public:
  Loader(Decoder& decoder, const Checkpoint& checkpoint, const DecoderOptions& options)
      : decoder_(decoder), config_(decoder.config_), checkpoint_(checkpoint), options_(options) {}

  absl::Status Load() {
    decoder_.layers_.resize(static_cast<size_t>(config_.num_layers));
    for (int64_t i = 0; i < config_.num_layers; ++i) {
      if (absl::Status status = LoadLayer(i); !status.ok()) return status;
    }
    if (absl::Status status = Vector("model.norm.weight", config_.hidden_size, &decoder_.final_gain_);
        !status.ok()) {
      return status;
    }
    if (absl::Status status = LoadEmbeddings(); !status.ok()) return status;
    if (absl::Status status = UploadVectors(); !status.ok()) return status;
    return AllocateActivations();
  }

 private:
  absl::Status LoadLayer(int64_t index);
  absl::Status LoadBiases(const std::string& prefix, Layer& layer);
  absl::Status LoadEmbeddings();
  absl::Status UploadVectors();
  absl::Status AllocateActivations();

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

  Decoder& decoder_;
  const ModelConfig& config_;
  const Checkpoint& checkpoint_;
  const DecoderOptions& options_;
  std::vector<float> collected_;
  std::vector<Placed> placed_;
};

absl::Status Decoder::Loader::Packed(std::initializer_list<Part> parts, int64_t cols, MatrixKind kind,
                                     std::unique_ptr<Matrix>* out) {
  std::vector<WeightView> views;
  for (const Part& part : parts) {
    absl::StatusOr<WeightView> view = checkpoint_.Weight(part.name, {part.rows, cols});
    if (!view.ok()) return view.status();
    views.push_back(*view);
  }
  absl::StatusOr<std::unique_ptr<Matrix>> matrix = decoder_.backend_.Pack(views, options_.weights, kind);
  if (!matrix.ok()) {
    return absl::Status(matrix.status().code(),
                        absl::StrCat("tensor '", parts.begin()->name, "': ", matrix.status().message()));
  }
  decoder_.weight_bytes_ += static_cast<int64_t>((*matrix)->bytes());
  *out = *std::move(matrix);
  return absl::OkStatus();
}

absl::Status Decoder::Loader::Vectors(std::initializer_list<Part> parts, const float** out) {
  placed_.push_back({out, collected_.size()});
  for (const Part& part : parts) {
    absl::StatusOr<WeightView> view = checkpoint_.Weight(part.name, {part.rows});
    if (!view.ok()) return view.status();
    const size_t offset = collected_.size();
    collected_.resize(offset + static_cast<size_t>(part.rows));
    CopyToF32(*view, 0, part.rows, collected_.data() + offset);
  }
  constexpr size_t kFloats = kAlignment / sizeof(float);
  collected_.resize((collected_.size() + kFloats - 1) / kFloats * kFloats);
  return absl::OkStatus();
}

absl::Status Decoder::Loader::LoadLayer(int64_t index) {
  Layer& layer = decoder_.layers_[static_cast<size_t>(index)];
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

absl::Status Decoder::Loader::LoadBiases(const std::string& prefix, Layer& layer) {
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
absl::Status Decoder::Loader::LoadEmbeddings() {
  const int64_t vocab = config_.vocab_size, hidden = config_.hidden_size;
  const std::string embedding = "model.embed_tokens.weight";
  if (config_.tie_embeddings) {
    return Packed({{embedding, vocab}}, hidden, MatrixKind::kPlain, &decoder_.head_);
  }
  if (absl::Status status = Packed({{"lm_head.weight", vocab}}, hidden, MatrixKind::kPlain, &decoder_.head_);
      !status.ok()) {
    return status;
  }
  absl::StatusOr<WeightView> view = checkpoint_.Weight(embedding, {vocab, hidden});
  if (!view.ok()) return view.status();
  absl::StatusOr<std::unique_ptr<Buffer>> buffer = decoder_.backend_.Allocate(view->num_bytes());
  if (!buffer.ok()) return buffer.status();
  decoder_.embedding_buffer_ = *std::move(buffer);
  decoder_.embedding_ = {
      .data = decoder_.embedding_buffer_->data(), .dtype = view->dtype, .rows = vocab, .cols = hidden};
  decoder_.weight_bytes_ += static_cast<int64_t>(view->num_bytes());
  return decoder_.backend_.Upload(view->data, view->num_bytes(), decoder_.embedding_.data);
}

absl::Status Decoder::Loader::UploadVectors() {
  const size_t bytes = collected_.size() * sizeof(float);
  absl::StatusOr<std::unique_ptr<Buffer>> buffer = decoder_.backend_.Allocate(bytes);
  if (!buffer.ok()) return buffer.status();
  decoder_.vectors_ = *std::move(buffer);
  decoder_.weight_bytes_ += static_cast<int64_t>(bytes);
  for (const Placed& placed : placed_) {
    *placed.field = static_cast<const float*>(decoder_.vectors_->data()) + placed.offset;
  }
  return decoder_.backend_.Upload(collected_.data(), bytes, decoder_.vectors_->data());
}

absl::Status Decoder::Loader::AllocateActivations() {
  const DType dtype = options_.activations;
  const int64_t rows = options_.max_rows;
  const auto tensor = [](DType type, int64_t count, int64_t cols) {
    return Tensor{.data = nullptr, .dtype = type, .rows = count, .cols = cols};
  };
  Decoder& d = decoder_;
  d.hidden_ = tensor(DType::kF32, rows, config_.hidden_size);
  d.normed_ = tensor(dtype, rows, config_.hidden_size);
  d.qkv_ = tensor(DType::kF32, rows, config_.q_size() + 2 * config_.kv_size());
  d.attended_ = tensor(dtype, rows, config_.q_size());
  d.inner_ = tensor(dtype, rows, config_.intermediate_size);
  d.gathered_ = tensor(DType::kF32, options_.max_samples, config_.q_size());
  d.selected_ = tensor(DType::kF32, options_.max_samples, config_.hidden_size);
  d.logits_ = tensor(DType::kF32, options_.max_logit_rows, config_.vocab_size);
  const std::array<Tensor*, 8> all = {&d.hidden_, &d.normed_,   &d.qkv_,      &d.attended_,
                                      &d.inner_,  &d.gathered_, &d.selected_, &d.logits_};
  int64_t bytes = 0;
  for (const Tensor* t : all) bytes += Aligned(static_cast<int64_t>(t->bytes()));
  absl::StatusOr<std::unique_ptr<Buffer>> buffer = d.backend_.Allocate(static_cast<size_t>(bytes));
  if (!buffer.ok()) return buffer.status();
  d.activations_ = *std::move(buffer);
  d.activation_bytes_ = bytes;
  auto* next = static_cast<std::byte*>(d.activations_->data());
  for (Tensor* t : all) {
    t->data = next;
    next += Aligned(static_cast<int64_t>(t->bytes()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Load(Backend& backend, const Checkpoint& checkpoint,
                                                       const ModelConfig& config,
                                                       const DecoderOptions& options) {
  std::unique_ptr<Decoder> decoder(new Decoder(backend, config));
  if (absl::Status status = Loader(*decoder, checkpoint, options).Load(); !status.ok()) return status;
  return decoder;
}

}  // namespace orrery
