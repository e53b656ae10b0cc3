#include "engine/cuda/page_table.h"

#include <algorithm>

#include "scheduler/base/check.h"

namespace orrery::cuda {

absl::Status PageTable::Allocate(Device& device) {
  absl::StatusOr<std::unique_ptr<Buffer>> table = device.Allocate(bytes());
  if (!table.ok()) return table.status();
  table_ = *std::move(table);
  known_.assign(static_cast<size_t>(slots_ * stride_), 0);
  runs_.reserve(static_cast<size_t>(slots_));
  return absl::OkStatus();
}

void PageTable::Put(int64_t slot, absl::Span<const int32_t> pages) {
  ORRERY_DCHECK(slot >= 0 && slot < slots_ && static_cast<int64_t>(pages.size()) <= stride_);
  const auto known = known_.begin() + slot * stride_;
  // Most are what they were, which is seen faster than where two differ.
  if (std::equal(pages.begin(), pages.end(), known)) return;
  const auto [differs, expected] = std::mismatch(pages.begin(), pages.end(), known);
  const auto count = static_cast<int32_t>(pages.end() - differs);
  runs_.push_back({.to = expected - known_.begin(), .from = changed_, .count = count});
  std::copy(differs, pages.end(), expected);
  changed_ += count;
}

void PageTable::Stage(Staging& staging) {
  const auto runs = staging.Take<PageRun>(static_cast<int64_t>(runs_.size()));
  const auto pages = staging.Take<int32_t>(changed_);
  std::copy(runs_.begin(), runs_.end(), runs.host);
  for (const PageRun& run : runs_) std::copy_n(known_.begin() + run.to, run.count, pages.host + run.from);
  update_ = {.table = static_cast<int32_t*>(table_->data()),
             .pages = pages.device,
             .runs = runs.device,
             .num_runs = static_cast<int32_t>(runs_.size())};
  runs_.clear();
  changed_ = 0;
}

void PageTable::Update(Stream stream) const { UpdatePageTable(stream, update_); }

void PageTable::Forget() { std::fill(known_.begin(), known_.end(), -1); }

}  // namespace orrery::cuda
