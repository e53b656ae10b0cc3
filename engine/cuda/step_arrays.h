// What all layers of a step share, as kernels want it: token ids, where every row is in its sequence and in
// the pool, what is new in block tables, and the plans of attention; sent to the device in one copy.
//
// The leading slices of one token are decoded, all others go through the kernel for prompts, so plans put
// decodes first. Batch-invariant, all go through the kernel for prompts, whose rows see nothing of how a
// sequence is cut into slices: decoding, prefill and recomputation agree bit for bit.
#ifndef ORRERY_ENGINE_CUDA_STEP_ARRAYS_H_
#define ORRERY_ENGINE_CUDA_STEP_ARRAYS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/backend.h"
#include "engine/cuda/device.h"
#include "engine/cuda/page_table.h"
#include "engine/cuda/staging.h"
#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/decode_plan.h"
#include "kernels/cuda/prefill_attention.h"

namespace orrery::cuda {

class StepArrays {
 public:
  StepArrays(const BackendLimits& limits, int multiprocessors, bool batch_invariant);

  // Of the device, for any step within the limits.
  size_t bytes() const { return StagingBytes() + PartialBytes() + page_table_.bytes(); }
  // `device` outlives this.
  absl::Status Allocate(Device& device);

  // The device is done with all but the kStepsInFlight - 1 steps before. padded_rows > 0: the step, which is
  // decode_only, is filled up to so many rows by ones that write nothing to the pool, and what it has on the
  // device is a function of their number but for the arrays' contents. Not where batch-invariant.
  void Begin(const StepInput& input, int64_t padded_rows = 0);
  // A step failed: what it sent may not have arrived.
  void Forget() { page_table_.Forget(); }

  int64_t rows() const { return rows_; }
  int32_t* ids() const { return ids_; }  // [rows]
  // [rows], as StepInput's; null where no row has a source, never with padded_rows.
  const int32_t* sources() const { return sources_; }
  const int32_t* positions() const { return positions_; }  // [rows]
  const int64_t* kv_slots() const { return kv_slots_; }    // [rows], page * kPageTokens + place in it; or -1
  const int32_t* row_numbers() const { return row_numbers_; }  // 0, 1, 2, ... [padded_rows]
  // Without what depends on the layer: queries, pool and output. No requests, no tiles: nothing to launch.
  DecodeAttentionArgs decode() const { return decode_; }
  PrefillAttentionArgs prefill() const { return prefill_; }

 private:
  size_t StagingBytes() const;
  size_t PartialBytes() const;
  int64_t MostRequests() const;
  int64_t MaxItems(int64_t requests) const;
  void StageRows(const StepInput& input, int64_t padded_rows);
  void StageDecodes(int64_t padded_rows);
  void StagePrompts(absl::Span<const StepSlice> slices, size_t first);

  const BackendLimits limits_;
  const int blocks_;  // of decode attention
  const bool batch_invariant_;
  DecodePlan plan_;
  const int64_t head_groups_;       // times that keys and values of a sequence are read
  std::vector<int32_t> lengths_;    // of the sequences that are decoded
  std::vector<int32_t> slots_;      // and theirs
  std::vector<PrefillTile> tiles_;  // of all others
  PageTable page_table_;
  Staging staging_;
  Device* device_ = nullptr;
  std::unique_ptr<Buffer> partial_;  // results of decode attention's items, and their sums of exponentials

  int64_t rows_ = 0;
  int32_t* ids_ = nullptr;
  const int32_t* sources_ = nullptr;
  const int32_t* positions_ = nullptr;
  const int64_t* kv_slots_ = nullptr;
  const int32_t* row_numbers_ = nullptr;
  DecodeAttentionArgs decode_;
  PrefillAttentionArgs prefill_;
};

}  // namespace orrery::cuda

#endif  // ORRERY_ENGINE_CUDA_STEP_ARRAYS_H_
