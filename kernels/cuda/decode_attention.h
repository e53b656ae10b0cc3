// Attention of one query row per request over the paged KV pool, for head dimensions 64 and 128, and the sum
// of what a plan cut into items. Softmax is f32; queries and softmax weights are rounded to bf16, products
// accumulate in f32; e4m3 keys and values enter as the bf16 that they are. A request's result depends on how
// the plan cuts it and on nothing else of the batch.
#ifndef ORRERY_KERNELS_CUDA_DECODE_ATTENTION_H_
#define ORRERY_KERNELS_CUDA_DECODE_ATTENTION_H_

#include <cstdint>

#include "kernels/cuda/decode_plan.h"
#include "kernels/cuda/kv_pages.h"
#include "kernels/cuda/stream.h"
#include "kernels/dtype.h"

namespace orrery::cuda {

// All pointers are the device's.
struct DecodeAttentionArgs {
  const void* q = nullptr;  // request r's heads at q + r * q_stride elements: [q_heads, head_dim], rotated
  DType q_dtype = DType::kF32;          // or bf16
  int64_t q_stride = 0;                 // elements, even
  int32_t q_heads = 0;                  // a multiple of pages.kv_heads
  KvPages pages;                        // head_dim 64 or 128
  const int32_t* page_table = nullptr;  // row t's pages at page_table + t * page_table_stride
  int64_t page_table_stride = 0;
  float scale = 1.0f;    // of the logits, > 0
  int32_t requests = 0;  // rows of out, those of length 0 included: they are not written

  // The plan's arrays, and room for its slots.
  const DecodeItem* items = nullptr;
  const DecodeWork* work = nullptr;
  const int32_t* block_begin = nullptr;  // [blocks + 1]
  int32_t blocks = 0;
  const int32_t* slot_begin = nullptr;  // [requests + 1]
  float* partial_out = nullptr;         // [slots, q_heads, head_dim]
  float* partial_lse = nullptr;         // [slots, q_heads]: log2 of the sum of exponentials

  void* out = nullptr;            // [requests, q_heads * head_dim]
  DType out_dtype = DType::kF32;  // or bf16 or f16
};

constexpr bool DecodeAttentionSupports(int32_t head_dim) { return head_dim == 64 || head_dim == 128; }

void DecodeAttention(Stream stream, const DecodeAttentionArgs& args);

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_DECODE_ATTENTION_H_
