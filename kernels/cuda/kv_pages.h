// The paged KV pool on a device, in bf16 or e4m3. A page of one layer holds 16 tokens as
// [keys | values][kv_head][16 tokens][head_dim]: the keys of one head are one contiguous tile, which is what
// a warp works on, and a page is one contiguous unit to copy or send. Offsets are 64 bits: pools outgrow 2^31
// elements.
#ifndef ORRERY_KERNELS_CUDA_KV_PAGES_H_
#define ORRERY_KERNELS_CUDA_KV_PAGES_H_

#include <cstdint>

#include "kernels/dtype.h"

namespace orrery::cuda {

inline constexpr int kPageTokens = 16;

// One layer of the pool: page p starts at base + p * page_stride. Both are multiples of 16 bytes.
struct KvPages {
  void* base = nullptr;
  int64_t page_stride = 0;  // bytes, at least PageBytes
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  DType dtype = DType::kBF16;  // or kE4M3: values as they are, without a scale, saturated
};

constexpr int64_t PageBytes(int32_t kv_heads, int32_t head_dim, DType dtype = DType::kBF16) {
  return int64_t{2} * kv_heads * kPageTokens * head_dim * static_cast<int64_t>(SizeOf(dtype));
}

// Bytes from the pool's begin to a head's tile of keys; the values are ValuesAfterKeys further on. Kernels
// know the size of their elements.
template <int kElementBytes = 2>
constexpr int64_t KeyTileOffset(const KvPages& pages, int64_t page, int32_t kv_head) {
  return page * pages.page_stride + int64_t{kv_head} * kPageTokens * pages.head_dim * kElementBytes;
}
template <int kElementBytes = 2>
constexpr int64_t ValuesAfterKeys(const KvPages& pages) {
  return int64_t{pages.kv_heads} * kPageTokens * pages.head_dim * kElementBytes;
}

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_KV_PAGES_H_
