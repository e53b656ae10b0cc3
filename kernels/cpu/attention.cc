#include "kernels/cpu/attention.h"

#include <algorithm>
#include <new>

#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/vector_kernels.h"

namespace orrery {
namespace {

constexpr std::align_val_t kAlign{64};
constexpr int32_t kTileRows = 64;  // query rows (tokens x heads of a group) that share a pass over the keys

int32_t TileTokens(const AttentionShape& shape) { return std::max(1, kTileRows / shape.group()); }

using TileFunction = void (*)(const AttentionTileArgs& args);

TileFunction TileFunctionFor(DType kv_dtype) {
  const VectorKernels& kernels = ActiveVectorKernels();
  if (kv_dtype == DType::kF32) return kernels.attention_f32;
  if (kv_dtype == DType::kF16) return kernels.attention_f16;
#if defined(__x86_64__)
  if (ActiveIsa() == Isa::kAmx) return AttentionTileAmx;
#endif
  return kernels.attention_bf16;
}

}  // namespace

void AttentionPlan::AlignedDelete::operator()(uint8_t* data) const { ::operator delete[](data, kAlign); }

AttentionPlan::AttentionPlan(const AttentionShape& shape, int64_t max_rows, int64_t max_slices,
                             int max_threads)
    : shape_(shape), tile_tokens_(TileTokens(shape)), max_threads_(max_threads) {
  const int64_t tile_rows = int64_t{tile_tokens_} * shape.group();
  scratch_bytes_ = (TileScratchBytes(tile_rows, shape.head_dim) + 63) / 64 * 64;
  tiles_.reserve(max_slices + max_rows / tile_tokens_);
  positions_.resize(max_rows);
  kv_slots_.resize(max_rows);
  scratch_.reset(new (kAlign) uint8_t[scratch_bytes_ * max_threads]);
}

AttentionPlan::~AttentionPlan() = default;

void AttentionPlan::Build(const KvSlice* slices, int64_t num_slices) {
  tiles_.clear();
  for (const KvSlice* slice = slices; slice != slices + num_slices; ++slice) {
    for (int32_t i = 0; i < slice->count; ++i) {
      const int32_t position = slice->position + i;
      positions_[slice->row_begin + i] = position;
      kv_slots_[slice->row_begin + i] =
          int64_t{slice->block_table[position / kKvBlockTokens]} * kKvBlockTokens + position % kKvBlockTokens;
    }
    for (int32_t begin = 0; begin < slice->count; begin += tile_tokens_) {
      const int32_t count = std::min(tile_tokens_, slice->count - begin);
      const int32_t position = slice->position + begin;
      // A pass over the keys costs as much as a few rows of arithmetic, however few rows there are.
      const int64_t rows = std::max(8, count * shape_.group());
      tiles_.push_back({.cost = (int64_t{position} + count) * rows,
                        .block_table = slice->block_table,
                        .row_begin = slice->row_begin + begin,
                        .count = count,
                        .position = position});
    }
  }
  std::sort(tiles_.begin(), tiles_.end(), [](const Tile& a, const Tile& b) {
    return a.cost != b.cost ? a.cost > b.cost : a.row_begin < b.row_begin;
  });
}

void PagedAttention(ThreadPool& threads, AttentionPlan& plan, const float* qkv, const KvPoolView& pool,
                    float scale, RowsOut out) {
  const AttentionShape& shape = plan.shape_;
  const TileFunction run_tile = TileFunctionFor(shape.kv_dtype);
  const int64_t qkv_stride = shape.qkv_stride();
  const int64_t out_stride = int64_t{shape.num_q_heads} * shape.head_dim;
  const int64_t out_size = static_cast<int64_t>(SizeOf(out.dtype));
  const int64_t items = static_cast<int64_t>(plan.tiles_.size()) * shape.num_kv_heads;
  threads.ParallelFor(items, 1, [&](int64_t begin, int64_t, int thread) {
    const AttentionPlan::Tile& tile = plan.tiles_[begin / shape.num_kv_heads];
    const int64_t kv_head = begin % shape.num_kv_heads;
    const int64_t column = kv_head * shape.group() * shape.head_dim;
    run_tile({.q = qkv + tile.row_begin * qkv_stride + column,
              .q_stride = qkv_stride,
              .tokens = tile.count,
              .group = shape.group(),
              .head_dim = shape.head_dim,
              .position = tile.position,
              .block_table = tile.block_table,
              .keys = static_cast<const uint8_t*>(pool.base) + kv_head * KvHeadBytes(shape),
              .value_offset = KvKeyBytes(shape),
              .block_stride = pool.block_stride,
              .value_dims = PaddedValueDims(shape),
              .scale = scale,
              .out = static_cast<uint8_t*>(out.data) + (tile.row_begin * out_stride + column) * out_size,
              .out_stride = out_stride,
              .out_bf16 = out.dtype == DType::kBF16,
              .scratch = plan.scratch_.get() + thread * plan.scratch_bytes_});
  });
}

}  // namespace orrery
