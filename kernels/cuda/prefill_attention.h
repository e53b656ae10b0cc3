// Causal attention of several query rows per request over the paged KV pool, for head dimensions 64 and 128:
// whole prompts, chunks of prompts and prompts behind a cached prefix are one kernel. The mask is
// bottom-right aligned: row i of a slice is token position + i of its request and sees the tokens up to
// itself.
//
// Numerics as in decode attention. Keys are visited in tiles aligned to absolute positions: a row's result
// depends on its query, its position and the tokens before it, bit for bit, not on how prompts are chunked.
#ifndef ORRERY_KERNELS_CUDA_PREFILL_ATTENTION_H_
#define ORRERY_KERNELS_CUDA_PREFILL_ATTENTION_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/kv_pages.h"
#include "kernels/cuda/stream.h"
#include "kernels/dtype.h"

namespace orrery::cuda {

inline constexpr int kPrefillTile = 64;  // query rows of a block, and tokens of a step of its loop

// Tokens [position, position + count) of a request are rows [row_begin, row_begin + count) of the step.
struct PrefillSlice {
  int32_t row_begin = 0;
  int32_t count = 0;
  int32_t position = 0;
  int32_t table_row = 0;  // of the page table
};

// Rows [first, first + kPrefillTile) of a slice, as far as it has them.
struct PrefillTile {
  int32_t slice;
  int32_t first;
};

// The tiles of a step, those that see most tokens first. `tiles` keeps its memory.
void PlanPrefill(std::span<const PrefillSlice> slices, std::vector<PrefillTile>& tiles);

// All pointers are the device's.
struct PrefillAttentionArgs {
  const void* q = nullptr;      // row r's heads at q + r * q_stride elements: [q_heads, head_dim], rotated
  DType q_dtype = DType::kF32;  // or bf16
  int64_t q_stride = 0;         // elements, a multiple of 8
  int32_t q_heads = 0;          // a multiple of pages.kv_heads
  KvPages pages;                // head_dim 64 or 128
  const int32_t* page_table = nullptr;  // row t's pages at page_table + t * page_table_stride
  int64_t page_table_stride = 0;
  float scale = 1.0f;  // of the logits, > 0
  const PrefillSlice* slices = nullptr;
  const PrefillTile* tiles = nullptr;  // [num_tiles], at most 65535
  int32_t num_tiles = 0;
  void* out = nullptr;            // [rows of the step, q_heads * head_dim]
  DType out_dtype = DType::kF32;  // or bf16 or f16
};

constexpr bool PrefillAttentionSupports(int32_t head_dim) { return head_dim == 64 || head_dim == 128; }

void PrefillAttention(Stream stream, const PrefillAttentionArgs& args);

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_PREFILL_ATTENTION_H_
