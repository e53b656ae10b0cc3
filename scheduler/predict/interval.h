// Expects the output of every request inside one interval [low, high], uniformly: what A_min and A_max
// (arXiv:2508.14544) ask for when nothing better is known than "no answer is shorter, none is longer".
#ifndef ORRERY_SCHEDULER_PREDICT_INTERVAL_H_
#define ORRERY_SCHEDULER_PREDICT_INTERVAL_H_

#include <cstdint>

#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/predict/length_predictor.h"

namespace orrery {

struct IntervalOptions {
  int32_t low = 1;   // tokens
  int32_t high = 0;  // tokens; 0: the request's own bound
  double alpha = 0;  // low is at least alpha * high
};

class IntervalPredictor final : public LengthPredictor {
 public:
  static absl::Span<const OptionField<IntervalOptions>> Fields();

  explicit IntervalPredictor(const IntervalOptions& options) : options_(options) {}
  int32_t Quantile(const SequenceView& sequence, double q) const override;
  void OnFinished(const SequenceView&) override {}

 private:
  IntervalOptions options_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_PREDICT_INTERVAL_H_
