// Random ragged batches for attention over the paged pool, and what they give in double precision.
#ifndef ORRERY_TESTS_KERNELS_CUDA_ATTENTION_CASES_H_
#define ORRERY_TESTS_KERNELS_CUDA_ATTENTION_CASES_H_

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/prefill_attention.h"
#include "tests/kernels/cuda/kernel_test.h"

namespace orrery::cuda {

inline constexpr double kAttentionTolerance = 4e-3;

struct Shape {
  int q_heads, kv_heads, head_dim;
};

// Requests with random keys and values in pages of a pool.
struct Cache {
  Shape shape{};
  std::vector<int32_t> lengths;
  Elements memory{DType::kBF16, 0};
  KvPages pages;
  std::vector<int32_t> table;
  int64_t table_stride = 0;

  // Index in `memory` of dimension 0 of a token's key; the layout is the one kv_pages.h describes.
  int64_t KeyAt(int request, int token, int kv_head) const {
    return table[request * table_stride + token / 16] * (pages.page_stride / ElementBytes()) +
           (int64_t{kv_head} * 16 + token % 16) * shape.head_dim;
  }
  int64_t ElementBytes() const { return static_cast<int64_t>(SizeOf(pages.dtype)); }
  int64_t ValueAt(int request, int token, int kv_head) const {
    return KeyAt(request, token, kv_head) + int64_t{shape.kv_heads} * 16 * shape.head_dim;
  }
};

class AttentionTest : public KernelTest {
 protected:
  Shape RandomShape() {
    const int kv_heads = Uniform(1, 2);
    return {kv_heads * std::array{1, 2, 3, 4, 8, 9}[Uniform(0, 5)], kv_heads, Uniform(0, 1) ? 64 : 128};
  }

  Shape SmallShape() {
    const int kv_heads = Uniform(1, 2);
    return {kv_heads * Uniform(1, 2), kv_heads, Uniform(0, 2) ? 64 : 128};
  }

  int RandomLength(int most) {
    constexpr std::array kEdges = {1, 15, 16, 17, 63, 64, 65, 127, 128, 129};
    const int length = Uniform(0, 1) ? kEdges[Uniform(0, kEdges.size() - 1)] : Uniform(1, most);
    return std::min(length, most);
  }

  Cache MakeCache(const Shape& shape, const std::vector<int32_t>& lengths, DType dtype = DType::kBF16) {
    Cache cache;
    cache.shape = shape;
    cache.lengths = lengths;
    int pages = 1;  // page 0 is nobody's
    for (const int32_t length : lengths) {
      pages += (length + 15) / 16;
      cache.table_stride = std::max<int64_t>(cache.table_stride, (length + 15) / 16 + Uniform(0, 2));
    }
    std::vector<int32_t> ids(pages - 1);
    std::iota(ids.begin(), ids.end(), 1);
    std::shuffle(ids.begin(), ids.end(), random_);
    cache.table.assign(lengths.size() * cache.table_stride, -1);
    const int64_t stride = PageBytes(shape.kv_heads, shape.head_dim, dtype) + 16 * Uniform(0, 2);
    cache.memory = Elements(dtype, static_cast<size_t>(pages * stride) / SizeOf(dtype));
    cache.pages = {cache.memory.data(), stride, shape.kv_heads, shape.head_dim, dtype};
    for (size_t r = 0; r < lengths.size(); ++r) {
      for (int p = 0; p < (lengths[r] + 15) / 16; ++p) {
        cache.table[r * cache.table_stride + p] = ids.back();
        ids.pop_back();
      }
      for (int token = 0; token < lengths[r]; ++token) {
        for (int h = 0; h < shape.kv_heads; ++h) {
          const std::vector<float> x = Normal(2 * shape.head_dim);
          for (int d = 0; d < shape.head_dim; ++d) {
            cache.memory.Set(cache.KeyAt(r, token, h) + d, x[d]);
            cache.memory.Set(cache.ValueAt(r, token, h) + d, x[shape.head_dim + d]);
          }
        }
      }
    }
    return cache;
  }

  // Attention of one query head over the first `tokens` of a request.
  static void Reference(const Cache& cache, int request, int tokens, int head, float scale, const Elements& q,
                        int64_t q_at, double* out) {
    const int dim = cache.shape.head_dim;
    const int kv_head = head / (cache.shape.q_heads / cache.shape.kv_heads);
    std::vector<double> weights(tokens);
    double best = -HUGE_VAL, sum = 0;
    for (int token = 0; token < tokens; ++token) {
      double dot = 0;
      for (int d = 0; d < dim; ++d) {
        dot += double{q[q_at + d]} * cache.memory[cache.KeyAt(request, token, kv_head) + d];
      }
      weights[token] = dot * scale;
      best = std::max(best, weights[token]);
    }
    for (double& weight : weights) sum += weight = std::exp(weight - best);
    std::fill_n(out, dim, 0.0);
    for (int token = 0; token < tokens; ++token) {
      for (int d = 0; d < dim; ++d) {
        out[d] += weights[token] / sum * cache.memory[cache.ValueAt(request, token, kv_head) + d];
      }
    }
  }
};

// Random queries that bf16 holds exactly, in either type: rounding them is not the kernel's error.
inline Elements Queries(DType dtype, std::vector<float> values) {
  for (float& x : values) x = F32FromBF16(BF16FromF32(x));
  return Elements(dtype, values);
}

class DecodeTest : public AttentionTest {
 protected:
  using LaunchDecode = void (*)(Stream, const DecodeAttentionArgs&);

  Elements Decode(Cache& cache, Elements& q, int64_t q_stride, DType out_dtype,
                  const DecodePlanOptions& options, LaunchDecode launch = &DecodeAttention) {
    const int requests = static_cast<int>(cache.lengths.size());
    DecodePlan plan(options);
    plan.Build(cache.lengths);
    Elements out(out_dtype, int64_t{requests} * cache.shape.q_heads * cache.shape.head_dim);
    std::vector<float> partial_out(int64_t{plan.num_slots()} * cache.shape.q_heads * cache.shape.head_dim,
                                   NAN);
    std::vector<float> partial_lse(int64_t{plan.num_slots()} * cache.shape.q_heads, NAN);
    const DecodeAttentionArgs args{.q = q.data(),
                                   .q_dtype = q.dtype(),
                                   .q_stride = q_stride,
                                   .q_heads = cache.shape.q_heads,
                                   .pages = cache.pages,
                                   .page_table = cache.table.data(),
                                   .page_table_stride = cache.table_stride,
                                   .scale = kScale,
                                   .requests = requests,
                                   .items = plan.items().data(),
                                   .work = plan.work().data(),
                                   .block_begin = plan.block_begin().data(),
                                   .blocks = options.blocks,
                                   .slot_begin = plan.slot_begin().data(),
                                   .partial_out = partial_out.data(),
                                   .partial_lse = partial_lse.data(),
                                   .out = out.data(),
                                   .out_dtype = out_dtype};
    launch(nullptr, args);
    return out;
  }

  std::vector<double> Expected(const Cache& cache, const Elements& q, int64_t q_stride) {
    const Shape& shape = cache.shape;
    std::vector<double> expected(cache.lengths.size() * shape.q_heads * shape.head_dim, 0.0);
    for (size_t r = 0; r < cache.lengths.size(); ++r) {
      for (int h = 0; h < shape.q_heads && cache.lengths[r] > 0; ++h) {
        Reference(cache, r, cache.lengths[r], h, kScale, q, r * q_stride + h * shape.head_dim,
                  expected.data() + (r * shape.q_heads + h) * shape.head_dim);
      }
    }
    return expected;
  }

  static constexpr float kScale = 0.11f;
};

class PrefillTest : public AttentionTest {
 protected:
  using LaunchPrefill = void (*)(Stream, const PrefillAttentionArgs&);

  Elements Prefill(Cache& cache, Elements& q, int64_t q_stride, int rows, DType out_dtype,
                   const std::vector<PrefillSlice>& slices, LaunchPrefill launch = &PrefillAttention) {
    std::vector<PrefillTile> tiles;
    PlanPrefill(slices, tiles);
    Elements out(out_dtype, int64_t{rows} * cache.shape.q_heads * cache.shape.head_dim);
    const PrefillAttentionArgs args{.q = q.data(),
                                    .q_dtype = q.dtype(),
                                    .q_stride = q_stride,
                                    .q_heads = cache.shape.q_heads,
                                    .pages = cache.pages,
                                    .page_table = cache.table.data(),
                                    .page_table_stride = cache.table_stride,
                                    .scale = kScale,
                                    .slices = slices.data(),
                                    .tiles = tiles.data(),
                                    .num_tiles = static_cast<int32_t>(tiles.size()),
                                    .out = out.data(),
                                    .out_dtype = out_dtype};
    launch(nullptr, args);
    return out;
  }

  std::vector<double> Expected(const Cache& cache, const Elements& q, int64_t q_stride, int rows,
                               const std::vector<PrefillSlice>& slices) {
    const Shape& shape = cache.shape;
    std::vector<double> expected(int64_t{rows} * shape.q_heads * shape.head_dim);
    for (const PrefillSlice& slice : slices) {
      for (int i = 0; i < slice.count; ++i) {
        const int64_t row = slice.row_begin + i;
        for (int h = 0; h < shape.q_heads; ++h) {
          Reference(cache, slice.table_row, slice.position + i + 1, h, kScale, q,
                    row * q_stride + h * shape.head_dim,
                    expected.data() + (row * shape.q_heads + h) * shape.head_dim);
        }
      }
    }
    return expected;
  }

  static constexpr float kScale = 0.09f;
};

}  // namespace orrery::cuda

#endif  // ORRERY_TESTS_KERNELS_CUDA_ATTENTION_CASES_H_
