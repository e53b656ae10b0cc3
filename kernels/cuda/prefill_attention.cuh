// The kernel behind prefill_attention.h: 64 query rows of one head by a block of four warps, 16 rows each,
// over tiles of 64 tokens (four pages) in two buffers. Softmax weights stay in registers: the C fragment of
// Q K^T is the A fragment of P V. Tiles of e4m3 are widened to a third one of bf16, a quarter by each warp:
// in registers all four would widen all of it.
#ifndef ORRERY_KERNELS_CUDA_PREFILL_ATTENTION_CUH_
#define ORRERY_KERNELS_CUDA_PREFILL_ATTENTION_CUH_

#include <cmath>
#include <cstddef>

#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/tile.cuh"

namespace orrery::cuda {

inline constexpr int kPrefillWarps = 4;

// Queries, and keys and values: twice, or of e4m3 (half the size) twice and once as bf16.
constexpr size_t PrefillSharedBytes(int head_dim) { return size_t{5} * kPrefillTile * head_dim * 2; }

template <int kHeadDim, typename Query, Fault kFault, typename Kv>
class PrefillBlock {
 public:
  using Layout = Tile<kHeadDim>;
  static constexpr int kSteps = kHeadDim / 16;
  static constexpr int kTokenBlocks = kPrefillTile / 8;
  static constexpr int kTileBytes = kPrefillTile * Layout::kRowBytes;
  static constexpr bool kBytes = sizeof(Kv) == 1;
  static constexpr int kFetchedChunks = Tile<kHeadDim, sizeof(Kv)>::kChunks;  // of a row in the pool
  static constexpr int kFetchedBytes = kPrefillTile * kFetchedChunks * kChunkBytes;
  static constexpr int kThreads = 32 * kPrefillWarps;

  __device__ __forceinline__ PrefillBlock(const PrefillAttentionArgs& args, int tile, int head,
                                          std::byte* shared)
      : args_(args),
        slice_(args.slices[args.tiles[tile].slice]),
        first_(args.tiles[tile].first),
        head_(head),
        queries_(shared) {
    rows_ = slice_.count - first_ < kPrefillTile ? slice_.count - first_ : kPrefillTile;
    position_ = (kFault == Fault::kAlignsMaskTopLeft ? 0 : slice_.position) + first_;
    tokens_ = position_ + rows_;
  }

  __device__ __forceinline__ void Run() {
    Fetch(0);
    LoadQueries();
    ORRERY_UNROLL
    for (int n = 0; n < 2 * kSteps; ++n) {
      ORRERY_UNROLL
      for (int i = 0; i < 4; ++i) out_[n][i] = 0.0f;
    }
    const int count = (tokens_ + kPrefillTile - 1) / kPrefillTile;
    for (int i = 0; i < count; ++i) {
      Fetch(i + 1);
      WaitCopies<1>();
      if constexpr (kBytes) Widen(i);
      if constexpr (kFault != Fault::kAttendsBeforeAllIsWidened) SyncBlock();
      const std::byte* keys = kBytes ? Wide() : Stage(i);
      AttendTile(keys, keys + kTileBytes, i * kPrefillTile);
      if constexpr (kFault != Fault::kRefillsWithoutBarrier) SyncBlock();
    }
    WriteOut();
  }

 private:
  __device__ __forceinline__ std::byte* Stage(int i) const {
    return queries_ + kTileBytes + 2 * (i % 2) * kFetchedBytes;
  }
  __device__ __forceinline__ std::byte* Wide() const { return queries_ + kTileBytes + 4 * kFetchedBytes; }

  // Starts the copy of the i-th tile of tokens; those behind the last visible one are zeros.
  __device__ __forceinline__ void Fetch(int i) {
    if (i * kPrefillTile < tokens_) {
      const int32_t* table = args_.page_table + slice_.table_row * args_.page_table_stride;
      const int kv_head = head_ / (args_.q_heads / args_.pages.kv_heads);
      std::byte* const stage = Stage(i);
      ORRERY_UNROLL
      for (int c = 0; c < kPrefillTile * kFetchedChunks / kThreads; ++c) {
        const int index = c * kThreads + ThreadX(), row = index / kFetchedChunks;
        const int token = i * kPrefillTile + row;
        const bool valid = token < tokens_;
        const int64_t page = valid ? table[token / kPageTokens] : 0;
        const int in_page = token % kPageTokens * kFetchedChunks + index % kFetchedChunks;
        const auto* keys = static_cast<const std::byte*>(args_.pages.base) +
                           KeyTileOffset<sizeof(Kv)>(args_.pages, page, kv_head) + in_page * kChunkBytes;
        const int to = kBytes ? index * kChunkBytes : Layout::At(row, index % kFetchedChunks);
        CopyAsync16(stage + to, keys, valid);
        CopyAsync16(stage + kFetchedBytes + to, keys + ValuesAfterKeys<sizeof(Kv)>(args_.pages), valid);
      }
    }
    CommitCopies();
  }

  // What this thread has fetched of the i-th tile, as bf16.
  __device__ __forceinline__ void Widen(int i) const {
    ORRERY_UNROLL
    for (int c = 0; c < 2 * kPrefillTile * kFetchedChunks / kThreads;
         ++c) {  // of the keys, then of the values
      const int index = c * kThreads + ThreadX(), row = index / kFetchedChunks;
      const auto from = LoadVector<WordVector>(Stage(i) + index * kChunkBytes);
      WordVector to[2];
      ORRERY_UNROLL
      for (int word = 0; word < 4; ++word) {
        uint32_t even, odd;
        WidenE4M3(from.words[word], even, odd);
        to[word / 2].words[word % 2 * 2] = (even & 0xffffu) | odd << 16;
        to[word / 2].words[word % 2 * 2 + 1] = even >> 16 | (odd & 0xffff0000u);
      }
      ORRERY_UNROLL
      for (int half = 0; half < 2; ++half) {
        StoreVector(Wide() + Layout::At(row, index % kFetchedChunks * 2 + half), to[half]);
      }
    }
  }

  // As bf16 to shared memory; rows that are not there are zeros. The loop's first barrier shows them to all.
  __device__ __forceinline__ void LoadQueries() {
    for (int index = ThreadX(); index < kPrefillTile * Layout::kChunks; index += kThreads) {
      const int row = index / Layout::kChunks, chunk = index % Layout::kChunks;
      float x[kRowVector] = {};
      if (row < rows_) {
        LoadRow(static_cast<const Query*>(args_.q) + (slice_.row_begin + first_ + row) * args_.q_stride +
                    head_ * kHeadDim + chunk * kRowVector,
                x);
      }
      StoreRow(reinterpret_cast<BF16*>(queries_ + Layout::At(row, chunk)), x);
    }
  }

  __device__ __forceinline__ void AttendTile(const std::byte* keys, const std::byte* values, int token) {
    // Lane: rows g and g + 8 of the warp's 16, tokens 2 t and 2 t + 1 of every 8.
    float logits[kTokenBlocks][4];
    ORRERY_UNROLL
    for (int n = 0; n < kTokenBlocks; ++n) {
      ORRERY_UNROLL
      for (int i = 0; i < 4; ++i) logits[n][i] = 0.0f;
    }
    const MatrixLane<true> rows_first(lane_);
    const MatrixLane<false> columns_first(lane_);
    ORRERY_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      uint32_t a[4];
      LoadMatrix4(a, queries_ + Layout::At(16 * warp_ + rows_first.row, 2 * k + rows_first.chunk));
      ORRERY_UNROLL
      for (int n = 0; n < kTokenBlocks / 2; ++n) {
        uint32_t b[4];
        const int row = 16 * n + columns_first.row, chunk = 2 * k + columns_first.chunk;
        LoadMatrix4(b,
                    keys + (kFault == Fault::kIgnoresSwizzle ? row * Layout::kRowBytes + chunk * kChunkBytes
                                                             : Layout::At(row, chunk)));
        MultiplyAdd(logits[2 * n], a, b[0], b[1]);
        MultiplyAdd(logits[2 * n + 1], a, b[2], b[3]);
      }
    }
    const int own = position_ + 16 * warp_ + g_;  // the position of row g
    if (token + kPrefillTile - 1 > own - g_) {    // the tile holds tokens that a row of the warp must not see
      ORRERY_UNROLL
      for (int n = 0; n < kTokenBlocks; ++n) {
        ORRERY_UNROLL
        for (int i = 0; i < 4; ++i) {
          if (token + 8 * n + 2 * t_ + i % 2 > own + i / 2 * 8) logits[n][i] = -INFINITY;
        }
      }
    }
    // Every row sees token 0, so maxima are finite from the first tile on.
    const float scale = args_.scale * 1.4426950408889634f;
    ORRERY_UNROLL
    for (int r = 0; r < 2; ++r) {
      float maximum = maximum_[r];
      ORRERY_UNROLL
      for (int n = 0; n < kTokenBlocks; ++n) {
        maximum = fmaxf(maximum, fmaxf(logits[n][2 * r], logits[n][2 * r + 1]));
      }
      maximum = fmaxf(maximum, ShuffleXor(maximum, 1));
      maximum = fmaxf(maximum, ShuffleXor(maximum, 2));
      const float correction = Exp2((maximum_[r] - maximum) * scale);
      maximum_[r] = maximum;
      sum_[r] *= correction;
      ORRERY_UNROLL
      for (int n = 0; n < kTokenBlocks; ++n) {
        ORRERY_UNROLL
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          logits[n][i] = Exp2((logits[n][i] - maximum) * scale);
          sum_[r] += logits[n][i];
        }
      }
      ORRERY_UNROLL
      for (int n = 0; n < 2 * kSteps; ++n) {
        out_[n][2 * r] *= correction;
        out_[n][2 * r + 1] *= correction;
      }
    }
    ORRERY_UNROLL
    for (int k = 0; k < kPrefillTile / 16; ++k) {
      const uint32_t a[4] = {PackBF16(logits[2 * k][0], logits[2 * k][1]),
                             PackBF16(logits[2 * k][2], logits[2 * k][3]),
                             PackBF16(logits[2 * k + 1][0], logits[2 * k + 1][1]),
                             PackBF16(logits[2 * k + 1][2], logits[2 * k + 1][3])};
      ORRERY_UNROLL
      for (int n = 0; n < kSteps; ++n) {
        uint32_t b[4];
        LoadMatrix4Transposed(b, values + Layout::At(16 * k + rows_first.row, 2 * n + rows_first.chunk));
        MultiplyAdd(out_[2 * n], a, b[0], b[1]);
        MultiplyAdd(out_[2 * n + 1], a, b[2], b[3]);
      }
    }
  }

  // The type is asked for once: as a parameter of the kernel it would triple what is compiled.
  __device__ __forceinline__ void WriteOut() {
    if (args_.out_dtype == DType::kBF16) {
      WriteOutAs<BF16>();
    } else if (args_.out_dtype == DType::kF16) {
      WriteOutAs<F16>();
    } else {
      WriteOutAs<float>();
    }
  }

  template <typename Out>
  __device__ __forceinline__ void WriteOutAs() {
    ORRERY_UNROLL
    for (int r = 0; r < 2; ++r) {
      float sum = sum_[r];
      sum += ShuffleXor(sum, 1);
      sum += ShuffleXor(sum, 2);
      const int row = 16 * warp_ + g_ + 8 * r;
      if (row >= rows_) continue;
      auto* out = static_cast<Out*>(args_.out) +
                  (int64_t{slice_.row_begin + first_ + row} * args_.q_heads + head_) * kHeadDim + 2 * t_;
      ORRERY_UNROLL
      for (int n = 0; n < 2 * kSteps; ++n) {
        Store(out + 8 * n, out_[n][2 * r] / sum);
        Store(out + 8 * n + 1, out_[n][2 * r + 1] / sum);
      }
    }
  }

  const PrefillAttentionArgs& args_;
  const PrefillSlice slice_;
  const int first_, head_;
  int rows_, position_, tokens_;  // rows of the tile, position of its first, tokens that its last sees
  std::byte* const queries_;
  const int warp_ = ThreadX() / 32, lane_ = ThreadX() % 32;
  const int g_ = lane_ / 4, t_ = lane_ % 4;
  float out_[2 * kSteps][4];
  float maximum_[2] = {-INFINITY, -INFINITY};
  float sum_[2] = {0.0f, 0.0f};  // of the lane's columns
};

// Grid (q_heads, tiles): the longest tiles of all heads start first, heads that share keys side by side.
// Blocks on a multiprocessor as there are registers for: left to choose, the compiler spills for one more.
template <int kHeadDim, typename Query, Fault kFault = Fault::kNone, typename Kv = BF16>
__global__ void __launch_bounds__(32 * kPrefillWarps, kHeadDim == 64 ? 3 : 2)
    PrefillAttentionKernel(const PrefillAttentionArgs args) {
  ORRERY_SHARED_MEMORY(shared);
  PrefillBlock<kHeadDim, Query, kFault, Kv>(args, BlockY(), BlockX(), shared).Run();
}

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_PREFILL_ATTENTION_CUH_
