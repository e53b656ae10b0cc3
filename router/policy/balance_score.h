// What placing a request on a worker does to the balance of a barrier, as a function of its size: the
// marginal form of Balance-Future (arXiv:2601.17855) and of BalanceRoute (arXiv:2605.06113).
//
//   F(s) = s sum_h w_h - beta sum_{h: m_h < s} w_h (s - m_h)
//
// m_h are the worker's margins below the envelope h = 0, 1... steps ahead, w_h the weights of those steps.
// With beta = the number of workers, F is the drop of sum_h w_h (G max_g L_g - sum_g L_g), where the envelope
// rises by what sticks out. Concave and piecewise linear: of some waiting sizes the best one is next to the
// peak.
#ifndef ORRERY_ROUTER_POLICY_BALANCE_SCORE_H_
#define ORRERY_ROUTER_POLICY_BALANCE_SCORE_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/types/span.h"

namespace orrery {

inline constexpr size_t kMaxMargins = 16;

// Spans of equal length.
inline double BalanceScore(absl::Span<const int64_t> margins, absl::Span<const double> weights, double beta,
                           int64_t size) {
  double score = 0;
  for (size_t h = 0; h < margins.size(); ++h) {
    const int64_t over = std::max<int64_t>(0, size - margins[h]);
    score += weights[h] * (static_cast<double>(size) - beta * static_cast<double>(over));
  }
  return score;
}

// The largest size at which F is greatest; the largest number where F never falls. REQUIRES: equal lengths,
// at most kMaxMargins.
inline int64_t PeakSize(absl::Span<const int64_t> margins, absl::Span<const double> weights, double beta) {
  if (margins.size() == 1) return beta > 1 ? margins[0] : std::numeric_limits<int64_t>::max();
  std::array<std::pair<int64_t, double>, kMaxMargins> kinks;
  double slope = 0;
  for (size_t h = 0; h < margins.size(); ++h) {
    kinks[h] = {margins[h], weights[h]};
    slope += weights[h];
  }
  std::sort(kinks.begin(), kinks.begin() + margins.size());
  for (size_t h = 0; h < margins.size(); ++h) {
    slope -= beta * kinks[h].second;
    if (slope < 0) return kinks[h].first;
  }
  return std::numeric_limits<int64_t>::max();
}

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_BALANCE_SCORE_H_
