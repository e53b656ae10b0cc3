#include "kernels/cpu/kv_layout.h"

#include <cstring>

namespace orrery {
namespace {

float LoadElement(const uint8_t* data, int64_t index, DType dtype) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, data + index * 4, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, data + index * 2, 2);
  return dtype == DType::kBF16 ? F32FromBF16(bits) : F32FromF16(bits);
}

}  // namespace

void ReadKv(const AttentionShape& shape, const KvPoolView& pool, int64_t block, int offset, int kv_head,
            float* key, float* value) {
  const uint8_t* keys = pool.block(block) + kv_head * KvHeadBytes(shape);
  const uint8_t* values = keys + KvKeyBytes(shape);
  const int64_t value_dims = PaddedValueDims(shape);
  const bool pairs = shape.kv_dtype == DType::kBF16;
  for (int64_t d = 0; d < shape.head_dim; ++d) {
    const int64_t k_index =
        pairs ? (d / 2 * kKvBlockTokens + offset) * 2 + d % 2 : d * kKvBlockTokens + offset;
    const int64_t v_index = pairs ? (offset / 2 * value_dims + d) * 2 + offset % 2 : offset * value_dims + d;
    key[d] = LoadElement(keys, k_index, shape.kv_dtype);
    value[d] = LoadElement(values, v_index, shape.kv_dtype);
  }
}

}  // namespace orrery
