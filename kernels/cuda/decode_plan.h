// How decode attention is spread over a device: a request's tokens are cut into items where the batch is too
// small to fill it, and the items, once per group of heads, are dealt to thread blocks of equal load.
#ifndef ORRERY_KERNELS_CUDA_DECODE_PLAN_H_
#define ORRERY_KERNELS_CUDA_DECODE_PLAN_H_

#include <cstdint>
#include <span>
#include <vector>

namespace orrery::cuda {

inline constexpr int kDecodeHeads = 8;  // most query heads that share a read of keys and values
inline constexpr int32_t kDecodeChunkStep = 64;
inline constexpr int32_t kInvariantChunk = 512;

// Tokens [begin, end) of a request, begin a multiple of the page size. slot: where the partial result goes;
// -1: the item is the whole request and its result is final.
struct DecodeItem {
  int32_t request;
  int32_t begin, end;
  int32_t slot;
  int32_t table_row;  // of the page table
};

struct DecodeWork {
  int32_t item;
  int32_t head_group;
};

struct DecodePlanOptions {
  int32_t blocks = 264;  // thread blocks of the launch: two per multiprocessor
  int32_t q_heads = 0;
  int32_t kv_heads = 0;
  // Cut every kInvariantChunk tokens, whatever else is in the batch: a request's result does not depend on
  // its neighbours, bit for bit.
  bool batch_invariant = false;
};

// Times a KV head is read: its query heads in groups of kDecodeHeads.
constexpr int32_t HeadGroupsPerKvHead(int32_t q_heads, int32_t kv_heads) {
  return (q_heads / kv_heads + kDecodeHeads - 1) / kDecodeHeads;
}

class DecodePlan {
 public:
  explicit DecodePlan(const DecodePlanOptions& options);

  // lengths: tokens of every request, the one being decoded included; 0 for rows that pad a batch, which get
  // no item. table_rows: where their pages are; empty: request r's in row r. What is allocated stays for the
  // next step.
  void Build(std::span<const int32_t> lengths, std::span<const int32_t> table_rows = {});

  // No plan of at most `requests` requests and `tokens` tokens in all has more items, or more slots.
  int64_t MaxItems(int64_t requests, int64_t tokens) const;

  const std::vector<DecodeItem>& items() const { return items_; }
  // Thread block b does work [block_begin[b], block_begin[b + 1]).
  const std::vector<DecodeWork>& work() const { return work_; }
  const std::vector<int32_t>& block_begin() const { return block_begin_; }  // [blocks + 1]
  // Request r's partial results are in slots [slot_begin[r], slot_begin[r + 1]).
  const std::vector<int32_t>& slot_begin() const { return slot_begin_; }  // [requests + 1]
  int32_t num_slots() const { return slot_begin_.back(); }

 private:
  int32_t ChunkFor(std::span<const int32_t> lengths) const;
  void Cut(std::span<const int32_t> lengths, std::span<const int32_t> table_rows, int32_t chunk);
  void Deal();

  DecodePlanOptions options_;
  int32_t head_groups_;
  std::vector<DecodeItem> items_;
  std::vector<DecodeWork> work_;
  std::vector<int32_t> block_begin_, slot_begin_;
  std::vector<uint64_t> order_;    // items, most expensive first: the bits of ~cost above those of the item
  std::vector<int32_t> block_of_;  // of every piece of work in that order
  // What blocks have got so far, as a tree: the leaves are the bits of the cost above those of the block,
  // every other node is the lesser of its two.
  std::vector<uint64_t> loads_;
};

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_DECODE_PLAN_H_
