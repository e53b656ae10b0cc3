// Sampling and scoring of rows of logits (kernels/cuda/sample.h) for the CUDA backend: gathers the lists of
// all rows, sends them, and hands the results out when the device is done.
#ifndef ORRERY_ENGINE_CUDA_SAMPLER_H_
#define ORRERY_ENGINE_CUDA_SAMPLER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/backend.h"
#include "engine/cuda/device.h"
#include "engine/cuda/staging.h"
#include "kernels/cuda/sample.h"

namespace orrery::cuda {

class Sampler {
 public:
  // `device` outlives this. Rows are of `vocab` logits; a call of PutRows has at most `max_rows`.
  Sampler(Device& device, int32_t vocab, int64_t max_rows);

  size_t bytes() const;  // of the device
  absl::Status Allocate() { return staging_.Allocate(device_, bytes()); }

  // On the device until Synchronize.
  const int32_t* PutRows(absl::Span<const int32_t> rows);
  // As Backend's. Arguments are copied; results are there after Synchronize.
  void Sample(const Tensor& logits, absl::Span<const orrery::SampleArgs> args, SampleResult* results);
  void Score(const Tensor& logits, absl::Span<const ScoreArgs> args, SampleResult* results);
  // Waits for the device and hands out the results, unless it, or an operation since the last call, failed.
  absl::Status Synchronize();

 private:
  // What is staged for one row: its rules, and the id where that is known, -1 where it is to be sampled.
  struct Row {
    orrery::SampleArgs args;
    int32_t known_token;
  };
  // Results that are there, on the host's side, when the device is done.
  struct Pending {
    const SampledToken* tokens;
    const TokenLogprob* top;
    int32_t count, top_stride;
    SampleResult* results;
  };

  static size_t RowBytes(const orrery::SampleArgs& args, int32_t top_stride);
  template <typename RowAt>
  void Run(const Tensor& logits, int64_t count, const RowAt& row_at, SampleResult* results);
  template <typename RowAt>
  void Launch(const Tensor& logits, int64_t count, int32_t top_stride, const RowAt& row_at,
              SampleResult* results);
  void MakeRoom(size_t bytes);
  void Drain();

  Device& device_;
  const int32_t vocab_;
  const int64_t max_rows_;
  Staging staging_;
  std::vector<Pending> pending_;
  absl::Status status_;  // the first error since Synchronize returned
};

}  // namespace orrery::cuda

#endif  // ORRERY_ENGINE_CUDA_SAMPLER_H_
