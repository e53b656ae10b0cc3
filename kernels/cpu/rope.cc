#include "kernels/cpu/rope.h"

#include <cstring>

#include "kernels/cpu/row_grain.h"
#include "kernels/cpu/vector_kernels.h"

namespace orrery {
namespace {

// The element of a bf16 pool pairs with its neighbour dimension (keys) or neighbour token (values).
void WriteBF16(const AttentionShape& shape, const float* key, const float* value, int offset, uint8_t* head) {
  uint16_t* keys = reinterpret_cast<uint16_t*>(head);
  uint16_t* values = reinterpret_cast<uint16_t*>(head + KvKeyBytes(shape));
  const int64_t dims = shape.head_dim;
  const int64_t key_dims = PaddedKeyDims(shape);
  uint16_t* to = keys + offset * 2;
  int64_t d = 0;
  for (; d + 2 <= dims; d += 2, to += kKvBlockTokens * 2) {
    const uint32_t pair = BF16FromF32(key[d]) | static_cast<uint32_t>(BF16FromF32(key[d + 1])) << 16;
    std::memcpy(to, &pair, 4);
  }
  for (; d < key_dims; d += 2, to += kKvBlockTokens * 2) {
    const uint32_t pair = d < dims ? BF16FromF32(key[d]) : 0;
    std::memcpy(to, &pair, 4);
  }
  to = values + offset / 2 * PaddedValueDims(shape) * 2 + offset % 2;
  for (d = 0; d < dims; ++d) to[2 * d] = BF16FromF32(value[d]);
}

template <typename T, typename Convert>
void WritePlain(const AttentionShape& shape, const float* key, const float* value, int offset, uint8_t* head,
                Convert convert) {
  T* keys = reinterpret_cast<T*>(head) + offset;
  T* values = reinterpret_cast<T*>(head + KvKeyBytes(shape)) + offset * PaddedValueDims(shape);
  for (int64_t d = 0; d < shape.head_dim; ++d) {
    keys[d * kKvBlockTokens] = convert(key[d]);
    values[d] = convert(value[d]);
  }
}

void WriteKv(const AttentionShape& shape, const float* key, const float* value, int offset, uint8_t* head) {
  switch (shape.kv_dtype) {
    case DType::kBF16:
      return WriteBF16(shape, key, value, offset, head);
    case DType::kF16:
      return WritePlain<uint16_t>(shape, key, value, offset, head, F16FromF32);
    default:
      return WritePlain<float>(shape, key, value, offset, head, [](float x) { return x; });
  }
}

void RopeKvRow(const RopeKvArgs& args, const VectorKernels& kernels, int64_t row) {
  const AttentionShape& shape = args.shape;
  const int64_t dim = shape.head_dim;
  const int64_t half = args.rotary_dim / 2;
  const float* cosine = args.cos_sin + row * 2 * half;
  float* head = args.qkv + row * shape.qkv_stride();
  for (int h = 0; h < shape.num_q_heads + shape.num_kv_heads; ++h, head += dim) {
    const float* gain = h < shape.num_q_heads ? args.q_gain : args.k_gain;
    if (gain != nullptr) kernels.rms_norm(head, nullptr, gain, args.eps, dim, head, false);
    kernels.rotate(head, cosine, cosine + half, half);
  }
  const int64_t slot = args.kv_slots[row];
  if (slot < 0) return;
  const float* key = head - shape.num_kv_heads * dim;
  uint8_t* block = args.pool.block(slot / kKvBlockTokens);
  for (int h = 0; h < shape.num_kv_heads; ++h, key += dim, block += KvHeadBytes(shape)) {
    WriteKv(shape, key, key + shape.num_kv_heads * dim, static_cast<int>(slot % kKvBlockTokens), block);
  }
}

}  // namespace

void RopeAngles(ThreadPool& pool, const int32_t* positions, int64_t rows, const float* inv_freq, int32_t half,
                float* cos_sin) {
  const auto kernel = ActiveVectorKernels().rope_angles;
  pool.ParallelFor(rows, RowGrain(int64_t{8} * half), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      float* cosine = cos_sin + r * 2 * half;
      kernel(positions[r], inv_freq, half, cosine, cosine + half);
    }
  });
}

void RopeAndWriteKv(ThreadPool& threads, const RopeKvArgs& args) {
  const VectorKernels& kernels = ActiveVectorKernels();
  threads.ParallelFor(args.rows, RowGrain(2 * args.shape.qkv_stride()), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) RopeKvRow(args, kernels, r);
  });
}

}  // namespace orrery
