#include "engine/model/decoder.h"

#include <algorithm>
#include <array>
#include <utility>

#include "scheduler/base/check.h"

namespace orrery {
namespace {

constexpr int64_t kAlignment = 64;
int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

void Decoder::FeedForward(const DecoderWeights::Layer& layer, const Tensor& hidden) {
  const Tensor normed = normed_.First(hidden.rows);
  const Tensor inner = inner_.First(hidden.rows);
  backend_.RmsNorm(normed, hidden, layer.mlp_gain, weights_->config.rms_norm_eps);
  backend_.MatMul(inner, normed, *layer.gate_up, layer.gate_up_bias, nullptr);
  backend_.MatMul(hidden, inner, *layer.down, layer.down_bias, static_cast<const float*>(hidden.data));
}

void Decoder::Forward(int64_t rows, bool select, absl::Span<const KvLayer> kv) {
  const float eps = weights_->config.rms_norm_eps;
  const Tensor hidden = hidden_.First(rows);
  const Tensor normed = normed_.First(rows);
  const Tensor qkv = qkv_.First(rows);
  const Tensor attended = attended_.First(rows);
  if (weights_->embedding_buffer == nullptr) {
    backend_.Embed(hidden, *weights_->head);
  } else {
    backend_.Embed(hidden, weights_->embedding);
  }
  for (size_t i = 0; i < weights_->layers.size(); ++i) {
    const DecoderWeights::Layer& layer = weights_->layers[i];
    backend_.RmsNorm(normed, hidden, layer.attention_gain, eps);
    backend_.MatMul(qkv, normed, *layer.qkv, layer.qkv_bias, nullptr);
    backend_.RopeAndWriteKv(qkv, layer.q_gain, layer.k_gain, eps, kv[i]);
    // From here on the last layer is for selected rows.
    const bool last = i + 1 == weights_->layers.size();
    if (last && !select) return;
    backend_.PagedAttention(attended, qkv, kv[i]);
    if (last) return;
    backend_.MatMul(hidden, attended, *layer.o, layer.o_bias, static_cast<const float*>(hidden.data));
    FeedForward(layer, hidden);
  }
}

void Decoder::Select(absl::Span<const int32_t> rows) {
  ORRERY_DCHECK(static_cast<int64_t>(rows.size()) <= selected_.rows);
  const DecoderWeights::Layer& layer = weights_->layers.back();
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
  backend_.RmsNorm(normed, selected_.Slice(begin, count), weights_->final_gain,
                   weights_->config.rms_norm_eps);
  backend_.MatMul(logits, normed, *weights_->head, nullptr, nullptr);
  return logits;
}

absl::Status Decoder::AllocateActivations(const DecoderOptions& options) {
  const ModelConfig& config = weights_->config;
  const DType dtype = options.activations;
  const int64_t rows = options.max_rows;
  const auto tensor = [](DType type, int64_t count, int64_t cols) {
    return Tensor{.data = nullptr, .dtype = type, .rows = count, .cols = cols};
  };
  hidden_ = tensor(DType::kF32, rows, config.hidden_size);
  normed_ = tensor(dtype, rows, config.hidden_size);
  qkv_ = tensor(DType::kF32, rows, config.q_size() + 2 * config.kv_size());
  attended_ = tensor(dtype, rows, config.q_size());
  inner_ = tensor(dtype, rows, config.intermediate_size);
  gathered_ = tensor(DType::kF32, options.max_samples, config.q_size());
  selected_ = tensor(DType::kF32, options.max_samples, config.hidden_size);
  logits_ = tensor(DType::kF32, options.max_logit_rows, config.vocab_size);
  const std::array<Tensor*, 8> all = {&hidden_, &normed_,   &qkv_,      &attended_,
                                      &inner_,  &gathered_, &selected_, &logits_};
  int64_t bytes = 0;
  for (const Tensor* t : all) bytes += Aligned(static_cast<int64_t>(t->bytes()));
  absl::StatusOr<std::unique_ptr<Buffer>> buffer = backend_.Allocate(static_cast<size_t>(bytes));
  if (!buffer.ok()) return buffer.status();
  activations_ = *std::move(buffer);
  activation_bytes_ = bytes;
  auto* next = static_cast<std::byte*>(activations_->data());
  for (Tensor* t : all) {
    t->data = next;
    next += Aligned(static_cast<int64_t>(t->bytes()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(Backend& backend,
                                                         std::shared_ptr<const DecoderWeights> weights,
                                                         const DecoderOptions& options) {
  std::unique_ptr<Decoder> decoder(new Decoder(backend, std::move(weights)));
  if (absl::Status status = decoder->AllocateActivations(options); !status.ok()) return status;
  return decoder;
}

}  // namespace orrery
