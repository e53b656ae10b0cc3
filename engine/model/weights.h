// The weights of a decoder (engine/model/decoder.h), packed once for a device and read by all ranks there.
#ifndef ORRERY_ENGINE_MODEL_WEIGHTS_H_
#define ORRERY_ENGINE_MODEL_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/model_config.h"

namespace orrery {

struct DecoderWeights {
  struct Layer {
    std::unique_ptr<Matrix> qkv, o, gate_up, down;
    // On the device, in `vectors`; null where the model has none.
    const float *attention_gain = nullptr, *mlp_gain = nullptr, *q_gain = nullptr, *k_gain = nullptr;
    const float *qkv_bias = nullptr, *o_bias = nullptr, *gate_up_bias = nullptr, *down_bias = nullptr;
  };

  // Packs the matrices as `type` (kF32, kBF16, kF16 or kI8); the checkpoint may be closed afterwards. Errors
  // name the tensor. Backends of the same kind, on the same device, may use the result, also when this one is
  // gone.
  static absl::StatusOr<std::shared_ptr<const DecoderWeights>> Load(Backend& backend,
                                                                    const Checkpoint& checkpoint,
                                                                    const ModelConfig& config, DType type);

  ModelConfig config;
  std::vector<Layer> layers;
  std::unique_ptr<Buffer> embedding_buffer;  // null when tied
  Tensor embedding;
  std::unique_ptr<Matrix> head;
  const float* final_gain = nullptr;
  std::unique_ptr<Buffer> vectors;
  int64_t bytes = 0;
};

}  // namespace orrery

#endif  // ORRERY_ENGINE_MODEL_WEIGHTS_H_
