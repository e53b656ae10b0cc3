// The one model definition: a pre-norm decoder with grouped-query attention, rotary embedding and a gated
// feed-forward block, written once over Backend. Llama, Mistral, Qwen2 and Qwen3 differ by switches of
// ModelConfig (biases, QK-norm, tied embeddings), not by code.
//
//   h = embed(ids)
//   per layer: h += Wo attention(rope(qknorm(Wqkv norm(h) + b)));  h += Wdown (silu(Wgate norm(h)) * Wup
//   norm(h)) logits = Whead norm(h), for the rows sampled or scored alone
//
// The residual stream h and the logits are f32. Q, K, V are one matrix, gate and up another. In the last
// layer everything behind attention is computed for the rows alone whose logits are asked for: those that are
// sampled and, where prompts are scored, theirs.
#ifndef ORRERY_ENGINE_MODEL_DECODER_H_
#define ORRERY_ENGINE_MODEL_DECODER_H_

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/backend.h"
#include "engine/model/weights.h"

namespace orrery {

struct DecoderOptions {
  DType activations = DType::kF32;
  int64_t max_rows = 0;        // tokens of a step
  int64_t max_samples = 0;     // rows of one call of Select
  int64_t max_logit_rows = 0;  // rows of one call of Logits
};

class Decoder {
 public:
  // Allocates the activations. `backend` outlives the decoder.
  static absl::StatusOr<std::unique_ptr<Decoder>> Create(Backend& backend,
                                                         std::shared_ptr<const DecoderWeights> weights,
                                                         const DecoderOptions& options);

  // Runs all layers up to and with the last attention for the step that the backend has begun; kv [layers].
  // Without `select` no row's logits will be asked for: the step is for the KV pool's sake.
  void Forward(int64_t rows, bool select, absl::Span<const KvLayer> kv);
  // Takes these rows of the step, [n <= max_samples] and there until they are computed, through what is left
  // of the last layer. As often as wanted: the next call takes their place.
  void Select(absl::Span<const int32_t> rows);
  // f32 [count, vocab] of selected rows [begin, begin + count), count <= max_logit_rows. The view is
  // overwritten by the next call.
  Tensor Logits(int64_t begin, int64_t count);

  int64_t weight_bytes() const { return weights_->bytes; }
  int64_t activation_bytes() const { return activation_bytes_; }

 private:
  Decoder(Backend& backend, std::shared_ptr<const DecoderWeights> weights)
      : backend_(backend), weights_(std::move(weights)) {}
  absl::Status AllocateActivations(const DecoderOptions& options);
  void FeedForward(const DecoderWeights::Layer& layer, const Tensor& hidden);

  Backend& backend_;
  const std::shared_ptr<const DecoderWeights> weights_;

  // [max_rows, ...] each; gathered_ and selected_ [max_samples, ...]: the rows that go on behind the last
  // attention.
  std::unique_ptr<Buffer> activations_;
  int64_t activation_bytes_ = 0;
  Tensor hidden_, normed_, qkv_, attended_, inner_, gathered_, selected_, logits_;
};

}  // namespace orrery

#endif  // ORRERY_ENGINE_MODEL_DECODER_H_
