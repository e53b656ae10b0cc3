// Causal attention of a step over the paged KV pool: whole prompts, chunks of prompts, prompts behind a
// cached prefix and single decode tokens, mixed, in one call per layer.
//
//   plan.Build(slices...) once per step (the same for all layers), then PagedAttention(...) per layer after
//   RopeAndWriteKv of that layer.
//
// Batch invariance: the result of a row depends on its query, its position and the keys and values before it,
// bit for bit: not on the other rows, the chunking, the number of threads or who computes it. Keys are
// visited in tiles aligned to absolute positions; decode and prefill run the same instructions per row.
//
// Numerics: softmax in f32. With f32 and f16 keys everything is f32; with bf16 keys on AMX, queries and
// softmax weights are rounded to bf16 (the weights with 0.19 % error, root mean square) and products
// accumulate in f32.
#ifndef ORRERY_KERNELS_CPU_ATTENTION_H_
#define ORRERY_KERNELS_CPU_ATTENTION_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/thread_pool.h"

namespace orrery {

struct AttentionTileArgs;

// What a step's attention is made of, and the memory it needs; allocated once by the constructor.
class AttentionPlan {
 public:
  // Steps of at most max_rows rows in at most max_slices slices (both >= 1), run by pools of at most
  // max_threads threads.
  AttentionPlan(const AttentionShape& shape, int64_t max_rows, int64_t max_slices, int max_threads);
  ~AttentionPlan();

  // What every thread of max_threads adds to the memory of a plan.
  static int64_t ThreadBytes(const AttentionShape& shape);

  // slices [num_slices] cover every row of the step once, in any order; every count >= 1. The slices and
  // their block tables must stay valid while the plan is used.
  void Build(const KvSlice* slices, int64_t num_slices);

  const AttentionShape& shape() const { return shape_; }
  // Per row of the step, what RopeAngles and RopeAndWriteKv want.
  const int32_t* positions() const { return positions_.data(); }
  const int64_t* kv_slots() const { return kv_slots_.data(); }

 private:
  friend void PagedAttention(ThreadPool& threads, AttentionPlan& plan, const float* qkv,
                             const KvPoolView& pool, float scale, RowsOut out);
  // A slice of the step as work: items [first_item, first_item + tiles * KV heads), each one tile of query
  // rows of one KV head. Tiles of a head follow each other, so that its keys stay in a cache, the longest
  // first.
  struct Work {
    KvSlice slice;
    int64_t cost;
    int64_t first_item;
    int32_t tiles;
  };

  AttentionShape shape_;
  int32_t tile_tokens_;  // most tokens in a tile
  int64_t scratch_bytes_;
  int64_t num_items_ = 0;
  int64_t tiled_items_ = 0;  // the first ones: of slices of several tiles
  std::vector<Work>
      work_;  // of the step: slices of several tiles, then the others, each most expensive first
  std::vector<int32_t> positions_;
  std::vector<int64_t> kv_slots_;
  AttentionTileArgs TileOf(int64_t item, const float* qkv, const KvPoolView& pool, RowsOut out) const;

  struct AlignedDelete {
    void operator()(uint8_t* data) const;
  };
  std::unique_ptr<uint8_t[], AlignedDelete> scratch_;  // [max_threads, scratch_bytes]
};

// scale > 0. qkv [rows, qkv_stride]: the rotated queries at the start of each row -> out [rows, num_q_heads *
// head_dim].
void PagedAttention(ThreadPool& threads, AttentionPlan& plan, const float* qkv, const KvPoolView& pool,
                    float scale, RowsOut out);

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_ATTENTION_H_
