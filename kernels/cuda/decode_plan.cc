#include "kernels/cuda/decode_plan.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "kernels/cuda/kv_pages.h"

namespace orrery::cuda {
namespace {

// What an item costs before its first page, in pages: the constant of FlashMLA's scheduler.
constexpr int64_t kItemOverheadPages = 5;
// Pieces of work per thread block that leave the dealing room to balance.
constexpr int64_t kPiecesPerBlock = 2;

// Of an item or a block beside a cost.
constexpr int kNumberBits = 24;
constexpr uint64_t kNumber = (uint64_t{1} << kNumberBits) - 1;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t ItemsOf(std::span<const int32_t> lengths, int32_t chunk) {
  int64_t items = 0;
  for (const int32_t length : lengths) items += CeilDiv(length, chunk);
  return items;
}

int64_t CostOf(const DecodeItem& item) {
  return CeilDiv(item.end - item.begin, kPageTokens) + kItemOverheadPages;
}

}  // namespace

DecodePlan::DecodePlan(const DecodePlanOptions& options)
    : options_(options),
      head_groups_(options.kv_heads * HeadGroupsPerKvHead(options.q_heads, options.kv_heads)) {}

int64_t DecodePlan::MaxItems(int64_t requests, int64_t tokens) const {
  if (options_.batch_invariant) return requests + tokens / kInvariantChunk;
  return std::max(requests, kPiecesPerBlock * options_.blocks / head_groups_);
}

void DecodePlan::Build(std::span<const int32_t> lengths, std::span<const int32_t> table_rows) {
  Cut(lengths, table_rows, options_.batch_invariant ? kInvariantChunk : ChunkFor(lengths));
  Deal();
}

// The smallest multiple of kDecodeChunkStep that makes no more pieces than the blocks want, found by halving:
// longer chunks never make more.
int32_t DecodePlan::ChunkFor(std::span<const int32_t> lengths) const {
  int32_t longest = 1;
  int64_t requests = 0;
  for (const int32_t length : lengths) {
    longest = std::max(longest, length);
    requests += length > 0;
  }
  const int64_t most = std::max(requests, kPiecesPerBlock * options_.blocks / head_groups_);
  int32_t low = 1, high = static_cast<int32_t>(CeilDiv(longest, kDecodeChunkStep));
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (ItemsOf(lengths, middle * kDecodeChunkStep) <= most) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low * kDecodeChunkStep;
}

void DecodePlan::Cut(std::span<const int32_t> lengths, std::span<const int32_t> table_rows, int32_t chunk) {
  items_.clear();
  slot_begin_.assign(1, 0);
  for (int32_t request = 0; request < static_cast<int32_t>(lengths.size()); ++request) {
    const int32_t length = lengths[request];
    const int32_t table_row = table_rows.empty() ? request : table_rows[request];
    int32_t slot = slot_begin_.back();
    for (int32_t begin = 0; begin < length; begin += chunk) {
      items_.push_back({.request = request,
                        .begin = begin,
                        .end = std::min(length, begin + chunk),
                        .slot = length > chunk ? slot++ : -1,
                        .table_row = table_row});
    }
    slot_begin_.push_back(slot);
  }
}

// Longest processing time first: each piece goes to the block with the least so far.
void DecodePlan::Deal() {
  order_.clear();
  for (size_t item = 0; item < items_.size(); ++item) {
    order_.push_back(~static_cast<uint64_t>(CostOf(items_[item])) << kNumberBits | item);
  }
  std::sort(order_.begin(), order_.end());
  const auto blocks = static_cast<size_t>(options_.blocks), leaves = std::bit_ceil(blocks);
  loads_.assign(2 * leaves, ~uint64_t{0});
  std::iota(loads_.begin() + leaves, loads_.begin() + leaves + blocks, 0);
  for (size_t node = leaves - 1; node > 0; --node) loads_[node] = loads_[2 * node];  // the first is least
  block_of_.clear();
  block_begin_.assign(options_.blocks + 1, 0);
  for (const uint64_t item : order_) {
    const uint64_t cost = ~item >> kNumberBits << kNumberBits;
    for (int32_t group = 0; group < head_groups_; ++group) {
      const auto block = static_cast<size_t>(loads_[1] & kNumber);
      block_of_.push_back(static_cast<int32_t>(block));
      ++block_begin_[block + 1];
      size_t node = leaves + block;
      for (loads_[node] += cost; node > 1; node /= 2)
        loads_[node / 2] = std::min(loads_[node], loads_[node ^ 1]);
    }
  }
  std::partial_sum(block_begin_.begin(), block_begin_.end(), block_begin_.begin());
  work_.resize(block_of_.size());
  // Places each piece at its block's cursor; afterwards the cursors are the begins of the blocks after.
  for (size_t piece = 0; piece < block_of_.size(); ++piece) {
    work_[block_begin_[block_of_[piece]]++] = {static_cast<int32_t>(order_[piece / head_groups_] & kNumber),
                                               static_cast<int32_t>(piece % head_groups_)};
  }
  std::copy_backward(block_begin_.begin(), block_begin_.end() - 1, block_begin_.end());
  block_begin_[0] = 0;
}

}  // namespace orrery::cuda
