#include "engine/cuda/step_arrays.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>
#include <utility>

#include "kernels/cuda/kv_pages.h"

namespace orrery::cuda {
namespace {

// Thread blocks of decode attention that a multiprocessor holds at a time.
constexpr int kDecodeBlocksPerMultiprocessor = 2;

// Rows that fill up a step.
constexpr int64_t kMostPadding = 8;

int64_t PagesOf(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

}  // namespace

StepArrays::StepArrays(const BackendLimits& limits, int multiprocessors, bool batch_invariant)
    : limits_(limits),
      blocks_(kDecodeBlocksPerMultiprocessor * multiprocessors),
      batch_invariant_(batch_invariant),
      plan_({.blocks = blocks_,
             .q_heads = limits.attention.num_heads,
             .kv_heads = limits.attention.num_kv_heads}),
      head_groups_(limits.attention.num_kv_heads *
                   HeadGroupsPerKvHead(limits.attention.num_heads, limits.attention.num_kv_heads)),
      page_table_(limits.max_slices, PagesOf(limits.max_context)) {
  lengths_.reserve(static_cast<size_t>(MostRequests()));
  slots_.reserve(static_cast<size_t>(MostRequests()));
  tiles_.reserve(static_cast<size_t>(limits.max_rows / kPrefillTile + limits.max_slices));
}

// A step may be filled up to some rows more than there are sequences.
int64_t StepArrays::MostRequests() const { return limits_.max_slices + kMostPadding; }

int64_t StepArrays::MaxItems(int64_t requests) const {
  return batch_invariant_ ? 0 : plan_.MaxItems(requests, requests * limits_.max_context);
}

size_t StepArrays::PartialBytes() const {
  const int64_t heads = limits_.attention.num_heads, dim = limits_.attention.head_dim;
  return static_cast<size_t>(MaxItems(MostRequests()) * heads * (dim + 1)) * sizeof(float);
}

size_t StepArrays::StagingBytes() const {
  const int64_t rows = std::max(limits_.max_rows, MostRequests()), slices = MostRequests();
  const int64_t items = MaxItems(slices);
  return 4 * Staging::BytesOf<int32_t>(rows) + Staging::BytesOf<int64_t>(rows) + page_table_.StagingBytes() +
         Staging::BytesOf<DecodeItem>(items) + Staging::BytesOf<DecodeWork>(items * head_groups_) +
         Staging::BytesOf<int32_t>(blocks_ + 1) + Staging::BytesOf<int32_t>(slices + 1) +
         Staging::BytesOf<PrefillSlice>(slices) + Staging::BytesOf<PrefillTile>(rows / kPrefillTile + slices);
}

absl::Status StepArrays::Allocate(Device& device) {
  absl::StatusOr<std::unique_ptr<Buffer>> partial = device.Allocate(PartialBytes());
  if (!partial.ok()) return partial.status();
  partial_ = *std::move(partial);
  if (absl::Status status = page_table_.Allocate(device); !status.ok()) return status;
  device_ = &device;
  return staging_.Allocate(device, StagingBytes());
}

void StepArrays::Begin(const StepInput& input, int64_t padded_rows) {
  staging_.BeginStep();
  decode_ = {};
  prefill_ = {};
  StageRows(input, padded_rows);
  // Request r of decode attention is row r of the step: only slices in front can be decoded.
  lengths_.clear();
  slots_.clear();
  for (const StepSlice& slice : input.slices) {
    if (batch_invariant_ || slice.count != 1 || slice.row_begin != static_cast<int32_t>(lengths_.size())) {
      break;
    }
    lengths_.push_back(slice.position + 1);
    slots_.push_back(slice.slot);
  }
  const size_t decodes = lengths_.size();
  if (decodes > 0) StageDecodes(padded_rows);
  if (decodes < input.slices.size()) StagePrompts(input.slices, decodes);
  // At the end: where an array is must not depend on how much of the tables is new.
  page_table_.Stage(staging_);
  staging_.Upload();
  page_table_.Update(device_->stream());
}

void StepArrays::StageRows(const StepInput& input, int64_t padded_rows) {
  const bool padded = padded_rows > 0;
  const int64_t rows = padded ? padded_rows : static_cast<int64_t>(input.ids.size());
  const auto ids = staging_.Take<int32_t>(rows), positions = staging_.Take<int32_t>(rows);
  const auto kv_slots = staging_.Take<int64_t>(rows);
  std::fill(std::copy(input.ids.begin(), input.ids.end(), ids.host), ids.host + rows, 0);
  for (const StepSlice& slice : input.slices) {
    page_table_.Put(slice.slot,
                    {slice.block_table, static_cast<size_t>(PagesOf(slice.position + slice.count))});
    for (int32_t i = 0; i < slice.count; ++i) {
      const int32_t position = slice.position + i;
      const int64_t page = slice.block_table[position / kPageTokens];
      positions.host[slice.row_begin + i] = position;
      kv_slots.host[slice.row_begin + i] = page * kPageTokens + position % kPageTokens;
    }
  }
  std::fill(positions.host + input.ids.size(), positions.host + rows, 0);
  std::fill(kv_slots.host + input.ids.size(), kv_slots.host + rows, -1);
  sources_ = nullptr;
  if (padded || !input.sources.empty()) {
    const auto sources = staging_.Take<int32_t>(rows);
    std::fill(std::copy(input.sources.begin(), input.sources.end(), sources.host), sources.host + rows, -1);
    sources_ = sources.device;
  }
  if (padded) {
    const auto numbers = staging_.Take<int32_t>(rows);
    std::iota(numbers.host, numbers.host + rows, 0);
    row_numbers_ = numbers.device;
  }
  rows_ = rows;
  ids_ = ids.device;
  positions_ = positions.device;
  kv_slots_ = kv_slots.device;
  decode_.page_table = prefill_.page_table = page_table_.data();
  decode_.page_table_stride = prefill_.page_table_stride = page_table_.stride();
  decode_.q_heads = prefill_.q_heads = limits_.attention.num_heads;
  decode_.scale = prefill_.scale = 1.0f / std::sqrt(static_cast<float>(limits_.attention.head_dim));
}

void StepArrays::StageDecodes(int64_t padded_rows) {
  const auto requests = std::max(static_cast<int64_t>(lengths_.size()), padded_rows);
  lengths_.resize(static_cast<size_t>(requests), 0);
  slots_.resize(static_cast<size_t>(requests), 0);
  plan_.Build(lengths_, slots_);
  // Where an array is must not depend on how sequences were cut.
  const int64_t items = MaxItems(requests);
  const auto put = [this](const auto& values, int64_t capacity) {
    const auto array = staging_.Take<std::decay_t<decltype(values.front())>>(capacity);
    std::copy(values.begin(), values.end(), array.host);
    return array.device;
  };
  decode_.requests = static_cast<int32_t>(requests);
  decode_.items = put(plan_.items(), items);
  decode_.work = put(plan_.work(), items * head_groups_);
  decode_.block_begin = put(plan_.block_begin(), blocks_ + 1);
  decode_.blocks = blocks_;
  decode_.slot_begin = put(plan_.slot_begin(), requests + 1);
  decode_.partial_out = static_cast<float*>(partial_->data());
  decode_.partial_lse =
      decode_.partial_out + items * limits_.attention.num_heads * limits_.attention.head_dim;
}

void StepArrays::StagePrompts(absl::Span<const StepSlice> slices, size_t first) {
  const size_t count = slices.size() - first;
  const auto prompts = staging_.Take<PrefillSlice>(static_cast<int64_t>(count));
  for (size_t s = first; s < slices.size(); ++s) {
    prompts.host[s - first] = {.row_begin = slices[s].row_begin,
                               .count = slices[s].count,
                               .position = slices[s].position,
                               .table_row = slices[s].slot};
  }
  PlanPrefill({prompts.host, count}, tiles_);
  prefill_.slices = prompts.device;
  prefill_.tiles = staging_.Put(absl::MakeConstSpan(tiles_));
  prefill_.num_tiles = static_cast<int32_t>(tiles_.size());
}

}  // namespace orrery::cuda
