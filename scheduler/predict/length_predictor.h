// How many output tokens a sequence will have made in the end. Policies ask; the truth arrives through
// OnFinished. Predictions may be wrong: the repair rule of WorkerCore keeps the promise about memory.
#ifndef ORRERY_SCHEDULER_PREDICT_LENGTH_PREDICTOR_H_
#define ORRERY_SCHEDULER_PREDICT_LENGTH_PREDICTOR_H_

#include <cstdint>

#include "scheduler/types/sequence_view.h"

namespace orrery {

class LengthPredictor {
 public:
  virtual ~LengthPredictor() = default;
  // The q-quantile of the number of output tokens in all, given what was generated so far: q = 0 and 1 are
  // the bounds, 0.5 the point. In [max(1, num_generated), max_new_tokens], ascending in q. Deterministic.
  virtual int32_t Quantile(const SequenceView& sequence, double q) const = 0;
  // `sequence` ended by itself after num_generated tokens.
  virtual void OnFinished(const SequenceView& sequence) = 0;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_PREDICT_LENGTH_PREDICTOR_H_
