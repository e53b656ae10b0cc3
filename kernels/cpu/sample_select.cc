#include "kernels/cpu/sample_select.h"

#include <algorithm>
#include <functional>

namespace orrery {
namespace {

constexpr int64_t kSample = 128;
constexpr int64_t kSorted = 256;  // so few are sorted
// More passes than this mean that the sampled pivots are useless; sorting what is left is bounded.
constexpr int kMaxPasses = 16;

// What a value counts towards the goal.
struct Measure {
  bool by_sum;
  double Of(float value) const { return by_sum ? value : 1.0; }
  // Of all values >= least, and how many those are.
  double AtLeast(const VectorKernels& kernels, const float* x, int64_t n, float least, int64_t* count) const {
    double sum;
    *count = kernels.count_at_least(x, n, least, &sum);
    return by_sum ? sum : static_cast<double>(*count);
  }
};

// How many values equal to `value` it takes to close `gap`.
int64_t TiesFor(const Measure& measure, float value, double gap, int64_t present) {
  const double wanted = std::ceil(gap / measure.Of(value));
  return wanted >= static_cast<double>(present) ? present
                                                : std::max<int64_t>(1, static_cast<int64_t>(wanted));
}

// x [n] holds all values in the range of the cut; sorts it.
Cut CutSorted(const Measure& measure, float* x, int64_t n, double goal) {
  std::sort(x, x + n, std::greater<float>());
  double above = 0;
  for (int64_t i = 0; i < n;) {
    const int64_t end = std::upper_bound(x + i, x + n, x[i], std::greater<float>()) - x;
    const double these = measure.Of(x[i]) * static_cast<double>(end - i);
    if (above + these >= goal || end == n) {
      return {.least = x[i], .ties = TiesFor(measure, x[i], goal - above, end - i), .present = end - i};
    }
    above += these;
    i = end;
  }
  return {};
}

// An element of x near the cut, judged by a sample that stands for a measure of `total`; `shift` elements of
// the sample further down (positive) or up.
float GuessPivot(const Measure& measure, const float* x, int64_t n, double goal, double total,
                 int64_t shift) {
  float sample[kSample];
  double sampled = 0;
  for (int64_t i = 0; i < kSample; ++i) sampled += measure.Of(sample[i] = x[i * n / kSample]);
  std::sort(sample, sample + kSample, std::greater<float>());
  const double wanted = sampled * goal / total;
  double above = 0;
  int64_t i = 0;
  while (i < kSample && above < wanted) above += measure.Of(sample[i++]);
  return sample[std::clamp<int64_t>(i + shift, 0, kSample - 1)];
}

Cut FindCut(const VectorKernels& kernels, const Measure& measure, const float* values, int64_t n, double goal,
            double total, float* candidates) {
  const float* x = values;
  float least = -std::numeric_limits<float>::infinity();
  float below = std::numeric_limits<float>::infinity();
  for (int pass = 0; n > kSorted && pass < kMaxPasses; ++pass) {
    // Alternately a little below the cut and a little above it, so that a few passes enclose it.
    const float pivot = GuessPivot(measure, x, n, goal, total, pass % 2 == 0 ? kSample / 16 : -kSample / 16);
    int64_t count_above, count;
    const double above = measure.AtLeast(kernels, x, n, NextAbove(pivot), &count_above);
    if (above >= goal) {
      least = NextAbove(pivot);
      total = above;
    } else {
      const double at_least = measure.AtLeast(kernels, x, n, pivot, &count);
      if (at_least >= goal || count == n) {
        const int64_t present = count - count_above;
        return {.least = pivot, .ties = TiesFor(measure, pivot, goal - above, present), .present = present};
      }
      goal -= at_least;
      total -= at_least;
      below = pivot;
    }
    n = kernels.keep_between(x, n, least, below, candidates);
    x = candidates;
  }
  if (x == values && values != candidates) std::copy_n(values, n, candidates);
  return CutSorted(measure, candidates, n, goal);
}

}  // namespace

Cut CutAtCount(const VectorKernels& kernels, const float* values, int64_t n, int64_t k, float* candidates) {
  return FindCut(kernels, {.by_sum = false}, values, n, static_cast<double>(k), static_cast<double>(n),
                 candidates);
}

Cut CutAtSum(const VectorKernels& kernels, const float* values, int64_t n, double sum, double total,
             float* candidates) {
  return FindCut(kernels, {.by_sum = true}, values, n, sum, total, candidates);
}

}  // namespace orrery
