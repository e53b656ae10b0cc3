#include "scheduler/predict/interval.h"

#include <algorithm>
#include <cmath>

namespace orrery {

absl::Span<const OptionField<IntervalOptions>> IntervalPredictor::Fields() {
  static constexpr OptionField<IntervalOptions> kFields[] = {
      {"low", &IntervalOptions::low, 1, 1 << 24, "output tokens at least"},
      {"high", &IntervalOptions::high, 0, 1 << 24, "output tokens at most; 0: max_tokens of the request"},
      {"alpha", &IntervalOptions::alpha, 0, 1, "low is at least this share of high"},
  };
  return kFields;
}

int32_t IntervalPredictor::Quantile(const SequenceView& sequence, double q) const {
  const int32_t bound = sequence.max_new_tokens;
  const double high = options_.high == 0 ? bound : std::min(options_.high, bound);
  // What was generated has narrowed the interval from below.
  const double low = std::max({static_cast<double>(options_.low), options_.alpha * high,
                               static_cast<double>(sequence.num_generated)});
  const double length = low + std::clamp(q, 0.0, 1.0) * std::max(0.0, high - low);
  return static_cast<int32_t>(std::min<double>(std::ceil(length), bound));
}

}  // namespace orrery
