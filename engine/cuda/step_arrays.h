// What all layers of a step share, as kernels want it: token ids, where every row is in its sequence and in
// the pool, block tables and the plans of attention; sent to the device in one copy.
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
#include "engine/cuda/staging.h"
#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/decode_plan.h"
#include "kernels/cuda/prefill_attention.h"

namespace orrery::cuda {

class StepArrays {
 public:
  StepArrays(const BackendLimits& limits, int multiprocessors, bool batch_invariant);

  // Of the device, for any step within the limits.
  size_t bytes() const { return StagingBytes() + PartialBytes(); }
  // `device` outlives this.
  absl::Status Allocate(Device& device);

  // Behind a Synchronize only.
  void Begin(const StepInput& input);

  const int32_t* ids() const { return ids_; }              // [rows]
  const int32_t* positions() const { return positions_; }  // [rows]
  const int64_t* kv_slots() const { return kv_slots_; }    // [rows], page * kPageTokens + place in it
  // Without what depends on the layer: queries, pool and output. No requests, no tiles: nothing to launch.
  DecodeAttentionArgs decode() const { return decode_; }
  PrefillAttentionArgs prefill() const { return prefill_; }

 private:
  size_t StagingBytes() const;
  size_t PartialBytes() const;
  int64_t MaxItems() const;
  void StageRows(absl::Span<const StepSlice> slices);
  void StageDecodes();
  void StagePrompts(absl::Span<const StepSlice> slices, size_t first);

  const BackendLimits limits_;
  const int blocks_;  // of decode attention
  const bool batch_invariant_;
  DecodePlan plan_;
  std::vector<int32_t> lengths_;    // of the sequences that are decoded
  std::vector<PrefillTile> tiles_;  // of all others
  Staging staging_;
  std::unique_ptr<Buffer> partial_;  // results of decode attention's items, and their sums of exponentials

  const int32_t* ids_ = nullptr;
  const int32_t* positions_ = nullptr;
  const int64_t* kv_slots_ = nullptr;
  DecodeAttentionArgs decode_;
  PrefillAttentionArgs prefill_;
};

}  // namespace orrery::cuda

#endif  // ORRERY_ENGINE_CUDA_STEP_ARRAYS_H_
