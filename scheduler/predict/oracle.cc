#include "scheduler/predict/oracle.h"

#include <algorithm>
#include <cmath>

#include "scheduler/base/random.h"

namespace orrery {

void OracleTable::Set(SequenceId id, int32_t output_tokens) {
  if (Value(id) >= lengths_.size()) lengths_.resize(Value(id) + 1, 0);
  lengths_[Value(id)] = output_tokens;
}

absl::Span<const OptionField<OracleOptions>> OraclePredictor::Fields() {
  static constexpr OptionField<OracleOptions> kFields[] = {
      {"noise", &OracleOptions::noise, 0, 0.99, "relative error of the point"},
      {"seed", &OracleOptions::seed, 0, 1 << 30, "of the errors"},
  };
  return kFields;
}

int32_t OraclePredictor::Quantile(const SequenceView& sequence, double q) const {
  const int32_t truth = table_->Get(sequence.id);
  const int32_t bound = sequence.max_new_tokens;
  if (truth == 0) return bound;
  double length = truth;
  if (options_.noise > 0) {
    const double factor = 2 * UniformAt(options_.seed, Value(sequence.id)) - 1;
    const double point = truth * (1 + options_.noise * factor);
    const double low = point / (1 + options_.noise), high = point / (1 - options_.noise);
    q = std::clamp(q, 0.0, 1.0);
    length = q < 0.5 ? low + 2 * q * (point - low) : point + (2 * q - 1) * (high - point);
    // The upper bound holds although it is rounded.
    length = q == 1 ? std::ceil(length - 1e-9) : std::floor(length + (q == 0 ? 1e-9 : 0.5));
  }
  return static_cast<int32_t>(std::clamp<double>(length, std::max(1, sequence.num_generated), bound));
}

}  // namespace orrery
