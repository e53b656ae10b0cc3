#include "kernels/cpu/rope.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/row_grain.h"
#include "kernels/cpu/vector_kernels.h"

namespace orrery {
namespace {

// Writes rows of the step into one layer of the pool. A piece of rows is one thread's: a pair of tokens
// shares words of a bf16 pool, and is written as words only when both are in the piece.
class KvWriter {
 public:
  KvWriter(const RopeKvArgs& args, const VectorKernels& kernels)
      : args_(args), shape_(args.shape), kernels_(kernels), value_dims_(PaddedValueDims(args.shape)) {}

  void Write(int64_t begin, int64_t end) const {
    for (int64_t r = begin; r < end;) {
      const bool block = FillsBlock(r, end);
      for (int h = 0; h < shape_.num_kv_heads && args_.kv_slots[r] >= 0; ++h) {
        if (block) {
          WriteBlock(r, h);
        } else {
          WriteToken(r, h, begin, end);
        }
      }
      r += block ? kKvBlockTokens : 1;
    }
  }

 private:
  // Whether the rows from r on are all the tokens of a block of bf16.
  bool FillsBlock(int64_t r, int64_t end) const {
    const int64_t slot = args_.kv_slots[r];
    if (shape_.kv_dtype != DType::kBF16 || slot < 0 || slot % kKvBlockTokens != 0) return false;
    if (r + kKvBlockTokens > end) return false;
    for (int i = 1; i < kKvBlockTokens; ++i) {
      if (args_.kv_slots[r + i] != slot + i) return false;
    }
    return true;
  }

  const float* Key(int64_t r, int h) const {
    return args_.qkv + r * shape_.qkv_stride() + int64_t{shape_.num_q_heads + h} * shape_.head_dim;
  }
  const float* Value(int64_t r, int h) const {
    return Key(r, h) + int64_t{shape_.num_kv_heads} * shape_.head_dim;
  }
  uint8_t* Head(int64_t slot, int h) const {
    return args_.pool.block(slot / kKvBlockTokens) + h * KvHeadBytes(shape_);
  }

  void WriteBlock(int64_t r, int h) const {
    uint8_t* head = Head(args_.kv_slots[r], h);
    kernels_.key_block_bf16(Key(r, h), shape_.qkv_stride(), shape_.head_dim, PaddedKeyDims(shape_), head);
    for (int i = 0; i < kKvBlockTokens; i += 2) {
      const float* value = Value(r + i, h);
      kernels_.pair_bf16(value, value + shape_.qkv_stride(), shape_.head_dim,
                         head + KvKeyBytes(shape_) + i / 2 * value_dims_ * 4);
    }
  }

  void WriteToken(int64_t r, int h, int64_t begin, int64_t end) const {
    const int64_t slot = args_.kv_slots[r];
    uint8_t* head = Head(slot, h);
    const int offset = static_cast<int>(slot % kKvBlockTokens);
    WriteKey(Key(r, h), offset, head);
    const bool starts_pair = slot % 2 == 0 && r + 1 < end && args_.kv_slots[r + 1] == slot + 1;
    const bool ends_pair = slot % 2 == 1 && r > begin && args_.kv_slots[r - 1] == slot - 1;
    if (shape_.kv_dtype == DType::kBF16 && starts_pair) {
      const float* value = Value(r, h);
      kernels_.pair_bf16(value, value + shape_.qkv_stride(), shape_.head_dim,
                         head + KvKeyBytes(shape_) + offset / 2 * value_dims_ * 4);
    } else if (shape_.kv_dtype != DType::kBF16 || !ends_pair) {
      WriteValue(Value(r, h), offset, head + KvKeyBytes(shape_));
    }
  }

  void WriteKey(const float* key, int offset, uint8_t* keys) const {
    alignas(64) uint16_t narrow[kMaxHeadDim + 32] = {};
    switch (shape_.kv_dtype) {
      case DType::kBF16:
        kernels_.narrow_bf16(key, shape_.head_dim, narrow);
        return Scatter<uint32_t>(narrow, PaddedKeyDims(shape_) / 2, keys + offset * 4, kKvBlockTokens * 4);
      case DType::kF16:
        kernels_.narrow_f16(key, shape_.head_dim, narrow);
        return Scatter<uint16_t>(narrow, shape_.head_dim, keys + offset * 2, kKvBlockTokens * 2);
      default:
        return Scatter<float>(key, shape_.head_dim, keys + offset * 4, kKvBlockTokens * 4);
    }
  }

  void WriteValue(const float* value, int offset, uint8_t* values) const {
    uint16_t narrow[kMaxHeadDim];
    switch (shape_.kv_dtype) {
      case DType::kBF16:
        kernels_.narrow_bf16(value, shape_.head_dim, narrow);
        return Scatter<uint16_t>(narrow, shape_.head_dim,
                                 values + offset / 2 * value_dims_ * 4 + offset % 2 * 2, 4);
      case DType::kF16:
        return kernels_.narrow_f16(value, shape_.head_dim,
                                   reinterpret_cast<uint16_t*>(values) + offset * value_dims_);
      default:
        std::memcpy(reinterpret_cast<float*>(values) + offset * value_dims_, value,
                    static_cast<size_t>(shape_.head_dim) * sizeof(float));
    }
  }

  // count elements of T to places `stride` bytes apart.
  template <typename T>
  static void Scatter(const void* from, int64_t count, uint8_t* to, int64_t stride) {
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(to + i * stride, static_cast<const uint8_t*>(from) + i * static_cast<int64_t>(sizeof(T)),
                  sizeof(T));
    }
  }

  const RopeKvArgs& args_;
  const AttentionShape& shape_;
  const VectorKernels& kernels_;
  const int64_t value_dims_;
};

void NormAndRotate(const RopeKvArgs& args, const VectorKernels& kernels, int64_t row) {
  const AttentionShape& shape = args.shape;
  const int64_t half = args.rotary_dim / 2;
  const float* cosine = args.cos_sin + row * 2 * half;
  float* queries = args.qkv + row * shape.qkv_stride();
  float* keys = queries + int64_t{shape.num_q_heads} * shape.head_dim;
  kernels.norm_and_rotate(queries, shape.num_q_heads, shape.head_dim, args.q_gain, args.eps, cosine,
                          cosine + half, half);
  kernels.norm_and_rotate(keys, shape.num_kv_heads, shape.head_dim, args.k_gain, args.eps, cosine,
                          cosine + half, half);
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
  const KvWriter writer(args, kernels);
  // Few pieces of many rows: a block of tokens is fastest where it is whole in one piece.
  const int64_t blocks = args.rows / (4 * kKvBlockTokens * threads.num_threads());
  const int64_t grain =
      blocks > 0 ? std::min<int64_t>(blocks, 4) * kKvBlockTokens : RowGrain(2 * args.shape.qkv_stride());
  threads.ParallelFor(args.rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) NormAndRotate(args, kernels, r);
    writer.Write(begin, end);
  });
}

}  // namespace orrery
