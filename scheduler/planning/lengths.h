// Distributions of prompt and output lengths as planners need them: moments, the longest request, the mean
// number of prefill chunks. Exact sums for integer distributions, closed forms for the lognormal.
#ifndef ORRERY_SCHEDULER_PLANNING_LENGTHS_H_
#define ORRERY_SCHEDULER_PLANNING_LENGTHS_H_

#include <cstdint>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace orrery {

struct UniformLength {
  int64_t low = 1, high = 1;  // integers, both included
};
struct LognormalLength {
  double median = 1.0, sigma = 1.0;  // of the logarithm; no longest length
};
struct HistogramLength {
  std::vector<std::pair<int64_t, double>> weights;  // length, weight; weights need not add up to 1
};
// A constant is a uniform length with low = high.
using LengthDistribution = std::variant<UniformLength, LognormalLength, HistogramLength>;

// A request of s prompt and o output tokens with a weight.
struct JointLength {
  int64_t prompt_tokens = 1, output_tokens = 1;
  double weight = 1.0;
};

struct LengthMoments {
  double prompt = 0.0, prompt_squared = 0.0;  // E[s], E[s^2]
  double output = 0.0, output_squared = 0.0;
  double product = 0.0;        // E[s o]
  double longest_total = 0.0;  // ess sup (s + o); infinite without one
  double chunks = 0.0;         // E[ceil(s / chunk)]
};

inline constexpr int64_t kMaxLengthTokens = 100'000'000;

// INVALID_ARGUMENT names "prompt_tokens", "output_tokens" or "joint" and what is wrong with it.
absl::StatusOr<LengthMoments> IndependentMoments(const LengthDistribution& prompt,
                                                 const LengthDistribution& output, int64_t chunk_tokens);
absl::StatusOr<LengthMoments> JointMoments(const std::vector<JointLength>& rows, int64_t chunk_tokens);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_PLANNING_LENGTHS_H_
