#include "engine/cuda/step_arrays.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/cuda/kv_pages.h"

namespace orrery::cuda {
namespace {

// Thread blocks of decode attention that a multiprocessor holds at a time.
constexpr int kDecodeBlocksPerMultiprocessor = 2;

int64_t PagesOf(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

}  // namespace

StepArrays::StepArrays(const BackendLimits& limits, int multiprocessors, bool batch_invariant)
    : limits_(limits),
      blocks_(kDecodeBlocksPerMultiprocessor * multiprocessors),
      batch_invariant_(batch_invariant),
      plan_({.blocks = blocks_,
             .q_heads = limits.attention.num_heads,
             .kv_heads = limits.attention.num_kv_heads}) {
  lengths_.reserve(static_cast<size_t>(limits.max_slices));
  tiles_.reserve(static_cast<size_t>(limits.max_rows / kPrefillTile + limits.max_slices));
}

int64_t StepArrays::MaxItems() const {
  return batch_invariant_ ? 0 : plan_.MaxItems(limits_.max_slices, limits_.max_slices * limits_.max_context);
}

size_t StepArrays::PartialBytes() const {
  const int64_t heads = limits_.attention.num_heads, dim = limits_.attention.head_dim;
  return static_cast<size_t>(MaxItems() * heads * (dim + 1)) * sizeof(float);
}

size_t StepArrays::StagingBytes() const {
  const int64_t rows = limits_.max_rows, slices = limits_.max_slices;
  const int32_t heads = limits_.attention.num_heads, kv_heads = limits_.attention.num_kv_heads;
  const int64_t work = MaxItems() * kv_heads * HeadGroupsPerKvHead(heads, kv_heads);
  return 2 * Staging::BytesOf<int32_t>(rows) + Staging::BytesOf<int64_t>(rows) +
         Staging::BytesOf<int32_t>(slices * PagesOf(limits_.max_context)) +
         Staging::BytesOf<DecodeItem>(MaxItems()) + Staging::BytesOf<DecodeWork>(work) +
         Staging::BytesOf<int32_t>(blocks_ + 1) + Staging::BytesOf<int32_t>(slices + 1) +
         Staging::BytesOf<PrefillSlice>(slices) + Staging::BytesOf<PrefillTile>(rows / kPrefillTile + slices);
}

absl::Status StepArrays::Allocate(Device& device) {
  absl::StatusOr<std::unique_ptr<Buffer>> partial = device.Allocate(PartialBytes());
  if (!partial.ok()) return partial.status();
  partial_ = *std::move(partial);
  return staging_.Allocate(device, StagingBytes());
}

void StepArrays::Begin(const StepInput& input) {
  staging_.Clear();
  ids_ = staging_.Put(input.ids);
  decode_ = {};
  prefill_ = {};
  StageRows(input.slices);
  // Request r of decode attention is row r of the step: only slices in front can be decoded.
  lengths_.clear();
  for (const StepSlice& slice : input.slices) {
    if (batch_invariant_ || slice.count != 1 || slice.row_begin != static_cast<int32_t>(lengths_.size())) {
      break;
    }
    lengths_.push_back(slice.position + 1);
  }
  if (!lengths_.empty()) StageDecodes();
  if (lengths_.size() < input.slices.size()) StagePrompts(input.slices, lengths_.size());
  staging_.Upload();
}

void StepArrays::StageRows(absl::Span<const StepSlice> slices) {
  int64_t rows = 0, stride = 0;
  for (const StepSlice& slice : slices) {
    rows = std::max<int64_t>(rows, slice.row_begin + slice.count);
    stride = std::max(stride, PagesOf(slice.position + slice.count));
  }
  const auto positions = staging_.Take<int32_t>(rows);
  const auto kv_slots = staging_.Take<int64_t>(rows);
  const auto page_table = staging_.Take<int32_t>(static_cast<int64_t>(slices.size()) * stride);
  int32_t* pages = page_table.host;
  for (const StepSlice& slice : slices) {
    std::copy_n(slice.block_table, PagesOf(slice.position + slice.count), pages);
    pages += stride;
    for (int32_t i = 0; i < slice.count; ++i) {
      const int32_t position = slice.position + i;
      const int64_t page = slice.block_table[position / kPageTokens];
      positions.host[slice.row_begin + i] = position;
      kv_slots.host[slice.row_begin + i] = page * kPageTokens + position % kPageTokens;
    }
  }
  positions_ = positions.device;
  kv_slots_ = kv_slots.device;
  decode_.page_table = prefill_.page_table = page_table.device;
  decode_.page_table_stride = prefill_.page_table_stride = stride;
  decode_.q_heads = prefill_.q_heads = limits_.attention.num_heads;
  decode_.scale = prefill_.scale = 1.0f / std::sqrt(static_cast<float>(limits_.attention.head_dim));
}

void StepArrays::StageDecodes() {
  plan_.Build(lengths_);
  decode_.requests = static_cast<int32_t>(lengths_.size());
  decode_.items = staging_.Put(absl::MakeConstSpan(plan_.items()));
  decode_.work = staging_.Put(absl::MakeConstSpan(plan_.work()));
  decode_.block_begin = staging_.Put(absl::MakeConstSpan(plan_.block_begin()));
  decode_.blocks = blocks_;
  decode_.slot_begin = staging_.Put(absl::MakeConstSpan(plan_.slot_begin()));
  decode_.partial_out = static_cast<float*>(partial_->data());
  decode_.partial_lse = decode_.partial_out +
                        int64_t{plan_.num_slots()} * limits_.attention.num_heads * limits_.attention.head_dim;
}

void StepArrays::StagePrompts(absl::Span<const StepSlice> slices, size_t first) {
  const size_t count = slices.size() - first;
  const auto prompts = staging_.Take<PrefillSlice>(static_cast<int64_t>(count));
  for (size_t s = first; s < slices.size(); ++s) {
    prompts.host[s - first] = {.row_begin = slices[s].row_begin,
                               .count = slices[s].count,
                               .position = slices[s].position,
                               .table_row = static_cast<int32_t>(s)};
  }
  PlanPrefill({prompts.host, count}, tiles_);
  prefill_.slices = prompts.device;
  prefill_.tiles = staging_.Put(absl::MakeConstSpan(tiles_));
  prefill_.num_tiles = static_cast<int32_t>(tiles_.size());
}

}  // namespace orrery::cuda
