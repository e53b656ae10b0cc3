#include "kernels/cpu/attention.h"

#include <algorithm>
#include <new>

#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/vector_kernels.h"

namespace orrery {
namespace {

constexpr std::align_val_t kAlign{64};
// Items of decode that a thread takes at a time: of all but the last it knows which keys come next.
constexpr int64_t kMaxGrain = 8;
constexpr int32_t kTileRows = 128;  // query rows (tokens x heads of a group) that share a pass over the keys

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

int64_t AttentionPlan::ThreadBytes(const AttentionShape& shape) {
  const int64_t tile_rows = int64_t{TileTokens(shape)} * shape.group();
  return (TileScratchBytes(tile_rows, shape.head_dim) + 63) / 64 * 64;
}

AttentionPlan::AttentionPlan(const AttentionShape& shape, int64_t max_rows, int64_t max_slices,
                             int max_threads)
    : shape_(shape), tile_tokens_(TileTokens(shape)), scratch_bytes_(ThreadBytes(shape)) {
  work_.reserve(max_slices);
  positions_.resize(max_rows);
  kv_slots_.resize(max_rows);
  scratch_.reset(new (kAlign) uint8_t[scratch_bytes_ * max_threads]);
}

AttentionPlan::~AttentionPlan() = default;

void AttentionPlan::Build(const KvSlice* slices, int64_t num_slices) {
  work_.clear();
  for (const KvSlice* slice = slices; slice != slices + num_slices; ++slice) {
    for (int32_t i = 0; i < slice->count; ++i) {
      const int32_t position = slice->position + i;
      positions_[slice->row_begin + i] = position;
      kv_slots_[slice->row_begin + i] =
          int64_t{slice->block_table[position / kKvBlockTokens]} * kKvBlockTokens + position % kKvBlockTokens;
    }
    // A pass over the keys costs as much as a few rows of arithmetic, however few rows there are.
    const int64_t rows = std::max(8, slice->count * shape_.group());
    work_.push_back({.slice = *slice,
                     .cost = (int64_t{slice->position} + slice->count) * rows,
                     .first_item = 0,
                     .tiles = (slice->count + tile_tokens_ - 1) / tile_tokens_});
  }
  std::sort(work_.begin(), work_.end(), [](const Work& a, const Work& b) {
    if ((a.tiles > 1) != (b.tiles > 1)) return a.tiles > 1;
    return a.cost != b.cost ? a.cost > b.cost : a.slice.row_begin < b.slice.row_begin;
  });
  num_items_ = 0;
  tiled_items_ = 0;
  for (Work& work : work_) {
    work.first_item = num_items_;
    num_items_ += int64_t{work.tiles} * shape_.num_kv_heads;
    if (work.tiles > 1) tiled_items_ = num_items_;
  }
}

AttentionTileArgs AttentionPlan::TileOf(int64_t item, const float* qkv, const KvPoolView& pool,
                                        RowsOut out) const {
  const Work& work = *(std::upper_bound(work_.begin(), work_.end(), item,
                                        [](int64_t i, const Work& w) { return i < w.first_item; }) -
                       1);
  const int64_t kv_head = (item - work.first_item) / work.tiles;
  const int32_t tile = work.tiles - 1 - static_cast<int32_t>((item - work.first_item) % work.tiles);
  const int32_t begin = tile * tile_tokens_;
  const int64_t row = work.slice.row_begin + begin;
  const int64_t column = kv_head * shape_.group() * shape_.head_dim;
  const int64_t out_stride = int64_t{shape_.num_q_heads} * shape_.head_dim;
  return {.q = qkv + row * shape_.qkv_stride() + column,
          .q_stride = shape_.qkv_stride(),
          .tokens = std::min(tile_tokens_, work.slice.count - begin),
          .group = shape_.group(),
          .head_dim = shape_.head_dim,
          .position = work.slice.position + begin,
          .block_table = work.slice.block_table,
          .keys = static_cast<const uint8_t*>(pool.base) + kv_head * KvHeadBytes(shape_),
          .value_offset = KvKeyBytes(shape_),
          .block_stride = pool.block_stride,
          .value_dims = PaddedValueDims(shape_),
          .out = static_cast<uint8_t*>(out.data) +
                 (row * out_stride + column) * static_cast<int64_t>(SizeOf(out.dtype)),
          .out_stride = out_stride,
          .out_bf16 = out.dtype == DType::kBF16};
}

void PagedAttention(ThreadPool& threads, AttentionPlan& plan, const float* qkv, const KvPoolView& pool,
                    float scale, RowsOut out) {
  const TileFunction run_tile = TileFunctionFor(plan.shape_.kv_dtype);
  const int64_t singles = plan.num_items_ - plan.tiled_items_;
  const int64_t grain = std::clamp<int64_t>(singles / (2 * threads.num_threads()), 1, kMaxGrain);
  threads.ParallelFor(plan.tiled_items_ + (singles + grain - 1) / grain, 1,
                      [&](int64_t piece, int64_t, int thread) {
                        const int64_t later = piece - plan.tiled_items_;
                        const int64_t begin = later < 0 ? piece : plan.tiled_items_ + later * grain;
                        const int64_t end = later < 0 ? piece + 1 : std::min(begin + grain, plan.num_items_);
                        AttentionTileArgs args = plan.TileOf(begin, qkv, pool, out);
                        for (int64_t item = begin; item < end; ++item) {
                          args.scale = scale;
                          args.scratch = plan.scratch_.get() + thread * plan.scratch_bytes_;
                          AttentionTileArgs next;
                          if (item + 1 < end) next = plan.TileOf(item + 1, qkv, pool, out);
                          args.next_keys = next.keys;
                          args.next_table = next.block_table;
                          args.next_tokens = next.position + next.tokens;
                          run_tile(args);
                          args = next;
                        }
                      });
}

}  // namespace orrery
