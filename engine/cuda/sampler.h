// Sampling and scoring of rows of logits (kernels/cuda/sample.h) for the CUDA backend: gathers the lists of
// all rows, sends them, and hands the results of a step out when the device is done with it. What a step
// sampled also stays on the device, for the next one to go on from.
#ifndef ORRERY_ENGINE_CUDA_SAMPLER_H_
#define ORRERY_ENGINE_CUDA_SAMPLER_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
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
  // `device` outlives this. Rows are of `vocab` logits; a call of PutRows has at most `max_rows`, a step
  // samples at most `max_samples`.
  Sampler(Device& device, int32_t vocab, int64_t max_rows, int64_t max_samples);

  size_t bytes() const { return StagingBytes() + SampledBytes(); }  // of the device
  absl::Status Allocate();

  // At most kStepsInFlight steps are begun and not finished.
  void BeginStep();
  // On the device until the next call, of this or of what follows.
  const int32_t* PutRows(absl::Span<const int32_t> rows);
  // As Backend's. Arguments are copied; results are there after FinishStep.
  void Sample(const Tensor& logits, absl::Span<const orrery::SampleArgs> args, SampleResult* results);
  void Score(const Tensor& logits, absl::Span<const ScoreArgs> args, SampleResult* results);
  // The device is done with the oldest step: hands out its results, unless `status`, or an operation of the
  // step, says that it failed.
  absl::Status FinishStep(absl::Status status);

  // On the device: what the step before, or this one, sampled in all its calls of Sample, in order.
  const SampledToken* sampled() const { return static_cast<const SampledToken*>(sampled_->data()); }

 private:
  // What is staged for one row: its rules, and the id where that is known, -1 where it is to be sampled.
  struct Row {
    orrery::SampleArgs args;
    int32_t known_token;
  };
  // Results that are there, on the host's side, when the device is done with their step.
  struct Pending {
    const SampledToken* tokens;
    const TokenLogprob* top;
    int32_t count, top_stride;
    SampleResult* results;
  };
  struct Step {
    std::vector<Pending> pending;
    absl::Status status;  // the first error of its operations
  };

  size_t StagingBytes() const;
  size_t SampledBytes() const { return static_cast<size_t>(max_samples_) * sizeof(SampledToken); }
  Step& step() { return steps_[begun_ % kStepsInFlight]; }
  // Alternatives of a row that asks for `wanted`. The daemon refuses more than there can be; where another
  // process let them through, a row has fewer and its batch does not fail.
  int32_t MostTop(int32_t wanted) const { return std::min({wanted, vocab_, kMaxTopTokens}); }
  static size_t RowBytes(const orrery::SampleArgs& args, int32_t top_stride);
  // `sampled`, on the device, keeps the results; null: nobody goes on from them.
  template <typename RowAt>
  void Run(const Tensor& logits, int64_t count, const RowAt& row_at, SampleResult* results,
           SampledToken* sampled);
  template <typename RowAt>
  void Launch(const Tensor& logits, int64_t count, int32_t top_stride, const RowAt& row_at,
              SampleResult* results, SampledToken* sampled);
  void MakeRoom(size_t bytes);
  static void HandOut(Step& step);

  Device& device_;
  const int32_t vocab_;
  const int64_t max_rows_, max_samples_;
  Staging staging_;
  std::unique_ptr<Buffer> sampled_;  // SampledToken [max_samples]
  std::array<Step, kStepsInFlight> steps_;
  uint64_t begun_ = 0, finished_ = 0;
  int64_t num_sampled_ = 0;  // of the step
};

}  // namespace orrery::cuda

#endif  // ORRERY_ENGINE_CUDA_SAMPLER_H_
