// The kernels behind decode_attention.h.
//
// Keys and values of e4m3 are widened to bf16 in registers. There ldmatrix moves pairs of bytes, so that a
// lane holds other dimensions than of bf16: queries are read, and the output is written, in that order.
//
// Up to eight query heads that share a KV head are the N side of the matrix products, so no tensor work is
// padding: S^T = K Q^T and O^T = V^T P^T, one page of 16 tokens at a time. Warp w of a block takes pages w,
// w + 4, ... of an item through a ring of its own in shared memory; warps meet only to merge.
#ifndef ORRERY_KERNELS_CUDA_DECODE_ATTENTION_CUH_
#define ORRERY_KERNELS_CUDA_DECODE_ATTENTION_CUH_

#include <cmath>
#include <cstddef>

#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/tile.cuh"

namespace orrery::cuda {

inline constexpr int kDecodeWarps = 4;
inline constexpr int kDecodeStages = 3;  // pages of a warp's ring
inline constexpr float kLog2E = 1.4426950408889634f;

constexpr size_t DecodeSharedBytes(int head_dim, int element_bytes = 2) {
  return size_t{kDecodeWarps} * kDecodeStages * 2 * kPageTokens * head_dim * element_bytes;
}

// The numbers of a warp's pages, a lane each, read 32 pages before they are needed.
class PageWindow {
 public:
  // page(i): table + first + stride * i, for i in [0, count).
  __device__ __forceinline__ PageWindow(const int32_t* table, int first, int count)
      : table_(table), first_(first), count_(count) {
    ahead_ = Read(ThreadX() % 32);
  }
  // For i = 0, 1, 2, ... in this order, by whole warps.
  __device__ __forceinline__ int32_t Next(int i) {
    if (i % 32 == 0) {
      current_ = ahead_;
      ahead_ = Read(i + 32 + ThreadX() % 32);
    }
    return Shuffle(current_, i % 32);
  }

 private:
  __device__ __forceinline__ int32_t Read(int i) const {
    return i < count_ ? table_[first_ + kDecodeWarps * i] : 0;
  }
  const int32_t* table_;
  int first_, count_;
  int32_t current_ = 0, ahead_;
};

__device__ __forceinline__ uint32_t LoadPair(const float* from) { return PackBF16(from[0], from[1]); }
__device__ __forceinline__ uint32_t LoadPair(const BF16* from) {
  return *reinterpret_cast<const uint32_t*>(from);
}

// The maximum, or sum, over the lanes that hold the same column of a C fragment.
template <typename Operation>
__device__ __forceinline__ float ColumnReduce(float value) {
  ORRERY_UNROLL
  for (int distance = 4; distance < 32; distance *= 2) {
    value = Operation()(value, ShuffleXor(value, distance));
  }
  return value;
}

// What attention over some tokens is, for two heads of a lane.
struct PartialSoftmax {
  float maximum[2] = {-INFINITY, -INFINITY};  // of the logits in base 2
  float sum[2] = {0.0f, 0.0f};                // of 2^(logit - maximum)
};

template <int kHeadDim, typename Query, Fault kFault, typename Kv>
class DecodeBlock {
 public:
  static constexpr int kSteps = kHeadDim / 16;
  using Layout = Tile<kHeadDim, sizeof(Kv)>;
  static constexpr int kTileBytes = kPageTokens * Layout::kRowBytes;
  static constexpr bool kBytes = sizeof(Kv) == 1;
  static_assert(DecodeSharedBytes(kHeadDim, sizeof(Kv)) >=
                    kDecodeWarps * kDecodeHeads * (kHeadDim + 6) * sizeof(float),
                "Merge takes the place of the rings");

  __device__ __forceinline__ DecodeBlock(const DecodeAttentionArgs& args, const DecodeWork& work,
                                         std::byte* shared)
      : args_(args), item_(args.items[work.item]), shared_(shared) {
    const int group = args.q_heads / args.pages.kv_heads;
    const int per_kv_head = HeadGroupsPerKvHead(args.q_heads, args.pages.kv_heads);
    kv_head_ = work.head_group / per_kv_head;
    const int first_in_group = work.head_group % per_kv_head * kDecodeHeads;
    first_head_ = kv_head_ * group + first_in_group;
    heads_ = group - first_in_group < kDecodeHeads ? group - first_in_group : kDecodeHeads;
  }

  __device__ __forceinline__ void Run() {
    LoadQueries();
    ORRERY_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      ORRERY_UNROLL
      for (int i = 0; i < 4; ++i) out_[k][i] = 0.0f;
    }
    const int first_page = item_.begin / kPageTokens;
    const int pages = (item_.end + kPageTokens - 1) / kPageTokens - first_page;
    const int count = (pages - warp_ + kDecodeWarps - 1) / kDecodeWarps;
    PageWindow window(args_.page_table + item_.table_row * args_.page_table_stride, first_page + warp_,
                      count);
    constexpr int kAhead = kFault == Fault::kRefillsTooEarly ? kDecodeStages : kDecodeStages - 1;
    ORRERY_UNROLL
    for (int i = 0; i < kAhead; ++i) Fetch(window, i, count);
    for (int i = 0; i < count; ++i) {
      WaitCopies<kFault == Fault::kWaitsForOneCopyTooFew ? kAhead : kAhead - 1>();
      SyncWarp();  // the copies of all lanes, and nobody reads the page before
      Fetch(window, i + kAhead, count);
      const std::byte* keys = Stage(i);
      AttendPage(keys, keys + kTileBytes, TokenOf(i));
    }
    ORRERY_UNROLL
    for (int c = 0; c < 2; ++c) softmax_.sum[c] = ColumnReduce<Sum>(softmax_.sum[c]);
    WaitCopies<0>();
    SyncBlock();  // the rings become the place to merge
    Merge(count > 0);
  }

 private:
  __device__ __forceinline__ std::byte* Stage(int i) const {
    return shared_ + (warp_ * kDecodeStages + i % kDecodeStages) * 2 * kTileBytes;
  }
  // The first token of the warp's i-th page.
  __device__ __forceinline__ int TokenOf(int i) const {
    return item_.begin + (warp_ + kDecodeWarps * i) * kPageTokens;
  }

  // B fragments of Q^T; heads that are not there are zero.
  __device__ __forceinline__ void LoadQueries() {
    const auto* row = static_cast<const Query*>(args_.q) + item_.request * args_.q_stride +
                      (first_head_ + (g_ < heads_ ? g_ : 0)) * kHeadDim;
    ORRERY_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      ORRERY_UNROLL
      for (int half = 0; half < 2; ++half) {
        query_[k][half] = LoadPair(row + k * 16 + (kBytes ? 4 * t_ + 2 * half : half * 8 + 2 * t_));
      }
      if constexpr (kBytes) {  // dimensions 4 t and 4 t + 2, then 4 t + 1 and 4 t + 3
        const uint32_t first = query_[k][0], second = query_[k][1];
        query_[k][0] = (first & 0xffffu) | second << 16;
        query_[k][1] = first >> 16 | (second & 0xffff0000u);
      }
      ORRERY_UNROLL
      for (int half = 0; half < 2; ++half) query_[k][half] = g_ < heads_ ? query_[k][half] : 0u;
    }
  }

  // Starts the copy of the warp's i-th page, if there is one. Rows behind the item's end are zeros: what the
  // pool has there may be NaN, which a weight of zero does not hide.
  __device__ __forceinline__ void Fetch(PageWindow& window, int i, int count) {
    if (i < count) {
      const int64_t page = window.Next(i);
      const auto* keys = static_cast<const std::byte*>(args_.pages.base) +
                         KeyTileOffset<sizeof(Kv)>(args_.pages, page, kv_head_);
      const std::byte* values = keys + ValuesAfterKeys<sizeof(Kv)>(args_.pages);
      std::byte* const stage = Stage(i);
      const int rows = item_.end - TokenOf(i);
      ORRERY_UNROLL
      for (int c = 0; c < kPageTokens * Layout::kChunks / 32; ++c) {
        const int index = c * 32 + lane_, row = index / Layout::kChunks;
        const int to = Layout::At(row, index % Layout::kChunks);
        const bool valid = kFault == Fault::kReadsStaleValues || row < rows;
        CopyAsync16(stage + to, keys + index * kChunkBytes, valid);
        CopyAsync16(stage + kTileBytes + to, values + index * kChunkBytes, valid);
      }
    }
    CommitCopies();
  }

  __device__ __forceinline__ void AttendPage(const std::byte* keys, const std::byte* values, int token) {
    // Lane: tokens g and g + 8 of the page, heads 2 t and 2 t + 1.
    float logits[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    const MatrixLane<true> key_lane(lane_);
    [[maybe_unused]] uint32_t bytes[4];
    ORRERY_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      uint32_t a[4];
      if constexpr (kBytes) {
        // Tokens g and g + 8 of this step and of the next.
        if (k % 2 == 0) LoadMatrix4(bytes, keys + Layout::At(key_lane.row, k + key_lane.chunk));
        WidenE4M3(bytes[k % 2 * 2], a[0], a[2]);
        WidenE4M3(bytes[k % 2 * 2 + 1], a[1], a[3]);
      } else {
        LoadMatrix4(a, keys + Layout::At(key_lane.row, 2 * k + key_lane.chunk));
      }
      MultiplyAdd(logits, a, query_[k][0], query_[k][1]);
    }
    const int end = kFault == Fault::kMasksOneTokenLess ? item_.end - 1 : item_.end;
    ORRERY_UNROLL
    for (int i = 0; i < 4; ++i) {
      logits[i] = token + g_ + i / 2 * 8 < end ? logits[i] * (args_.scale * kLog2E) : -INFINITY;
    }
    float correction[2];
    ORRERY_UNROLL
    for (int c = 0; c < 2; ++c) {
      const float here = ColumnReduce<Maximum>(fmaxf(logits[c], logits[2 + c]));
      const float maximum = fmaxf(softmax_.maximum[c], here);
      correction[c] = Exp2(softmax_.maximum[c] - maximum);
      softmax_.maximum[c] = maximum;
      logits[c] = Exp2(logits[c] - maximum);
      logits[2 + c] = Exp2(logits[2 + c] - maximum);
      softmax_.sum[c] = softmax_.sum[c] * correction[c] + logits[c] + logits[2 + c];
    }
    uint32_t weights[2];  // B fragments of P^T
    ORRERY_UNROLL
    for (int half = 0; half < 2; ++half) {
      const uint32_t pair = PackBF16(logits[2 * half], logits[2 * half + 1]);
      weights[half] = kFault == Fault::kKeepsWeightsUntransposed ? pair : TransposeMatrix(pair);
    }
    const MatrixLane<kFault == Fault::kSwapsValueAddress> value_lane(lane_);
    ORRERY_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      ORRERY_UNROLL
      for (int i = 0; i < 4; ++i) {
        if constexpr (kFault != Fault::kForgetsToRescale) out_[k][i] *= correction[i % 2];
      }
      uint32_t a[4];
      if constexpr (kBytes) {
        // Tokens 2 t and 2 t + 1 of this step and of the next, then those eight further on.
        if (k % 2 == 0)
          LoadMatrix4Transposed(bytes, values + Layout::At(value_lane.row, k + value_lane.chunk));
        WidenE4M3(bytes[k % 2], a[0], a[1]);
        WidenE4M3(bytes[2 + k % 2], a[2], a[3]);
      } else {
        LoadMatrix4Transposed(a, values + Layout::At(value_lane.row, 2 * k + value_lane.chunk));
      }
      MultiplyAdd(out_[k], a, weights[0], weights[1]);
    }
  }

  // Warps write what they have, [warp][head][kHeadDim + 4] and their softmax; then the block adds it up.
  __device__ __forceinline__ void Merge(bool has_pages) {
    constexpr int kStride = kHeadDim + 4;  // keeps the columns of a fragment in different banks
    auto* const outs = reinterpret_cast<float*>(shared_);
    float* const maxima = outs + kDecodeWarps * kDecodeHeads * kStride;
    float* const sums = maxima + kDecodeWarps * kDecodeHeads;
    if (kFault != Fault::kLeavesMergeUnwritten || has_pages) {
      ORRERY_UNROLL
      for (int c = 0; c < 2; ++c) {
        const int head = warp_ * kDecodeHeads + 2 * t_ + c;
        ORRERY_UNROLL
        for (int k = 0; k < kSteps; ++k) {
          outs[head * kStride + k * 16 + (kBytes ? 2 * g_ : g_)] = out_[k][c];
          outs[head * kStride + k * 16 + (kBytes ? 2 * g_ + 1 : g_ + 8)] = out_[k][2 + c];
        }
        if (g_ == 0) {
          maxima[head] = softmax_.maximum[c];
          sums[head] = softmax_.sum[c];
        }
      }
    }
    if constexpr (kFault != Fault::kMergesTooEarly) SyncBlock();
    for (int e = ThreadX(); e < heads_ * kHeadDim; e += 32 * kDecodeWarps) {
      const int head = e / kHeadDim, d = e % kHeadDim;
      float maximum = -INFINITY;
      ORRERY_UNROLL
      for (int w = 0; w < kDecodeWarps; ++w) maximum = fmaxf(maximum, maxima[w * kDecodeHeads + head]);
      float sum = 0.0f, out = 0.0f;
      ORRERY_UNROLL
      for (int w = 0; w < kDecodeWarps; ++w) {
        const int from = w * kDecodeHeads + head;
        const float weight = Exp2(maxima[from] - maximum);
        sum += weight * sums[from];
        out += weight * outs[from * kStride + d];
      }
      Write(first_head_ + head, d, out / sum, maximum + log2f(sum));
    }
  }

  __device__ __forceinline__ void Write(int head, int d, float out, float lse) const {
    if (item_.slot < 0) {
      const int64_t row = int64_t{item_.request} * args_.q_heads + head;
      StoreAs(args_.out_dtype, args_.out, row * kHeadDim + d, out);
    } else {
      const int64_t row = int64_t{item_.slot} * args_.q_heads + head;
      args_.partial_out[row * kHeadDim + d] = out;
      if (d == 0) args_.partial_lse[row] = lse;
    }
  }

  const DecodeAttentionArgs& args_;
  const DecodeItem item_;
  std::byte* const shared_;
  int kv_head_, first_head_, heads_;
  const int warp_ = ThreadX() / 32, lane_ = ThreadX() % 32;
  const int g_ = lane_ / 4, t_ = lane_ % 4;
  uint32_t query_[kSteps][2];
  // Of O^T: dimensions g and g + 8 (of e4m3, 2 g and 2 g + 1) of every 16, heads 2 t and 2 t + 1.
  float out_[kSteps][4];
  PartialSoftmax softmax_;
};

// Persistent: block b does its list of work. Grid args.blocks.
template <int kHeadDim, typename Query, Fault kFault = Fault::kNone, typename Kv = BF16>
__global__ void __launch_bounds__(32 * kDecodeWarps, 2)
    DecodeAttentionKernel(const DecodeAttentionArgs args) {
  ORRERY_SHARED_MEMORY(shared);
  const int end = args.block_begin[BlockX() + 1];
  for (int w = args.block_begin[BlockX()]; w < end; ++w) {
    DecodeBlock<kHeadDim, Query, kFault, Kv>(args, args.work[w], shared).Run();
    SyncBlock();  // the merge has been read
  }
}

// Adds up the items of requests that were cut. Grid (requests, q_heads), a thread per dimension.
template <typename Out>
__global__ void __launch_bounds__(128) DecodeCombineKernel(const DecodeAttentionArgs args) {
  const int request = BlockX(), head = BlockY(), d = ThreadX(), head_dim = args.pages.head_dim;
  const int begin = args.slot_begin[request], end = args.slot_begin[request + 1];
  if (begin == end) return;
  float maximum = -INFINITY;
  for (int slot = begin; slot < end; ++slot) {
    maximum = fmaxf(maximum, args.partial_lse[int64_t{slot} * args.q_heads + head]);
  }
  float sum = 0.0f, out = 0.0f;
  for (int slot = begin; slot < end; ++slot) {
    const int64_t row = int64_t{slot} * args.q_heads + head;
    const float weight = Exp2(args.partial_lse[row] - maximum);
    sum += weight;
    out += weight * args.partial_out[row * head_dim + d];
  }
  Store(static_cast<Out*>(args.out) + (int64_t{request} * args.q_heads + head) * head_dim + d, out / sum);
}

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_DECODE_ATTENTION_CUH_
