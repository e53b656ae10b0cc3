// Expects every sequence to reach its own bound: the prediction that is never too low.
#ifndef ORRERY_SCHEDULER_PREDICT_REQUEST_BOUND_H_
#define ORRERY_SCHEDULER_PREDICT_REQUEST_BOUND_H_

#include "scheduler/predict/length_predictor.h"

namespace orrery {

class RequestBoundPredictor final : public LengthPredictor {
 public:
  int32_t Quantile(const SequenceView& sequence, double) const override { return sequence.max_new_tokens; }
  void OnFinished(const SequenceView&) override {}
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_PREDICT_REQUEST_BOUND_H_
