// The block tables of all slots on the device, where they stay from step to step: a step sends of each of its
// sequences what differs from what the slot had, which for a sequence that decodes is one page in sixteen
// steps. Where the device has a table is a function of its slot alone, so that recorded steps can rely on it.
#ifndef ORRERY_ENGINE_CUDA_PAGE_TABLE_H_
#define ORRERY_ENGINE_CUDA_PAGE_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/cuda/device.h"
#include "engine/cuda/staging.h"
#include "kernels/cuda/page_table.h"

namespace orrery::cuda {

class PageTable {
 public:
  PageTable(int64_t slots, int64_t pages) : slots_(slots), stride_(pages) {}

  size_t bytes() const { return static_cast<size_t>(slots_ * stride_) * sizeof(int32_t); }
  // That a step may take: every page of every slot may be another.
  size_t StagingBytes() const {
    return Staging::BytesOf<PageRun>(slots_) + Staging::BytesOf<int32_t>(slots_ * stride_);
  }
  absl::Status Allocate(Device& device);

  // In a step, once for each of its slots: the first pages of the slot's table. Pages behind them stay.
  void Put(int64_t slot, absl::Span<const int32_t> pages);
  // Behind the last Put of a step. Once they are uploaded, Update brings the table up to date.
  void Stage(Staging& staging);
  void Update(Stream stream) const;
  // The device's table may be another than what was put: everything is sent again.
  void Forget();

  // Slot s's pages begin at data() + s * stride().
  const int32_t* data() const { return static_cast<const int32_t*>(table_->data()); }
  int64_t stride() const { return stride_; }

 private:
  const int64_t slots_, stride_;
  std::unique_ptr<Buffer> table_;
  std::vector<int32_t> known_;  // what the device's table is behind the step at hand; -1: nobody knows
  // Of the step.
  std::vector<PageRun> runs_;
  int32_t changed_ = 0;  // pages
  UpdatePageTableArgs update_;
};

}  // namespace orrery::cuda

#endif  // ORRERY_ENGINE_CUDA_PAGE_TABLE_H_
