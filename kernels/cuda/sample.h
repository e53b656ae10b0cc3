// From rows of logits to the next tokens, on the device. For every row, in this order:
//
//   1. repetition penalty (logit > 0 ? logit / r : logit * r) on ids of prompt and output, then
//      logit -= frequency * count + presence on ids of the output
//   2. logit += bias; masked ids become -infinity
//   3. temperature; 0 is greedy: highest logit, lowest id on ties, and the rest is skipped
//   4. top_k most likely, then the shortest most-likely-first prefix whose share of what is left reaches
//      top_p, then those at least min_p times as likely as the most likely; ties go to lower ids
//   5. argmax of logit / temperature + a Gumbel variable of (seed, position, id): one draw of the softmax
//
// Log-probabilities are those of the log-softmax of the unmodified logits. A row's result depends on that row
// and its parameters alone, whatever the order in which threads run: sums that decide are of integers.
#ifndef ORRERY_KERNELS_CUDA_SAMPLE_H_
#define ORRERY_KERNELS_CUDA_SAMPLE_H_

#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/token_lists.h"

namespace orrery::cuda {

inline constexpr int32_t kMaxTopTokens = 128;

// Part of an array that all rows share.
struct ListRange {
  int32_t begin = 0, end = 0;
};

struct SampleParameters {
  float temperature = 1.0f;  // >= 0
  int32_t top_k = 0;         // 0: off
  float top_p = 1.0f;        // (0, 1]; 1: off
  float min_p = 0.0f;        // [0, 1]; 0: off
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  float repetition_penalty = 1.0f;  // > 0
  // Of SampleArgs's lists. Ids are in [0, vocab) and occur once in a range.
  ListRange counts{}, biases{}, masked{};
  uint64_t seed = 0;
  uint64_t position = 0;     // of the token that is drawn
  int32_t known_token = -1;  // >= 0: nothing is sampled, this is the token
  int32_t num_top = -1;      // -1: no log-probabilities; k: the token's and the k best, at most kMaxTopTokens
};

enum class SampleStatus : uint8_t {
  kOk,
  kNotFinite,  // a logit is NaN or +infinity, or all are -infinity: the token, an id as any, means nothing
  kAllMasked,  // no id is left after bias and masks: the token is the best one of the unmodified logits
};

struct SampledToken {
  int32_t token;
  SampleStatus status;
  float logprob;    // of `token`, where num_top >= 0
  int32_t num_top;  // min(num_top, vocab)
};

// All pointers are the device's.
struct SampleArgs {
  float* logits = nullptr;  // row r at logits + r * stride, [vocab]; modified
  int64_t stride = 0;
  int32_t vocab = 0;
  int32_t rows = 0;
  const SampleParameters* parameters = nullptr;  // [rows]
  const TokenCount* counts = nullptr;
  const TokenBias* biases = nullptr;
  const int32_t* masked = nullptr;
  // Room for as many values as each list has, for the logits before they were changed.
  float* before_counts = nullptr;
  float* before_biases = nullptr;
  float* before_masked = nullptr;
  SampledToken* results = nullptr;  // [rows]
  TokenLogprob* top = nullptr;      // [rows, top_stride]; best first, lower ids first on ties
  int32_t top_stride = 0;
};

void Sample(Stream stream, const SampleArgs& args);

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_SAMPLE_H_
