// Knows how long every output will be, exactly or within a factor: the yardstick for all other predictors.
// Only a simulator can own one: it fills the table.
#ifndef ORRERY_SCHEDULER_PREDICT_ORACLE_H_
#define ORRERY_SCHEDULER_PREDICT_ORACLE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/base/ids.h"
#include "scheduler/base/options.h"
#include "scheduler/predict/length_predictor.h"

namespace orrery {

// True output tokens of the sequences of one worker. A WorkerCore numbers the samples it accepts 1, 2, ...:
// right after OnArrival the newest is SequenceId{counters().accepted}.
class OracleTable {
 public:
  void Set(SequenceId id, int32_t output_tokens);
  // 0: unknown.
  int32_t Get(SequenceId id) const { return Value(id) < lengths_.size() ? lengths_[Value(id)] : 0; }

 private:
  std::vector<int32_t> lengths_;  // by id
};

struct OracleOptions {
  double noise = 0;  // [0, 1): the point is the truth times a factor uniform in [1 - noise, 1 + noise]
  int32_t seed = 1;  // of the factors; one factor per sequence
};

class OraclePredictor final : public LengthPredictor {
 public:
  OraclePredictor(std::shared_ptr<const OracleTable> table, const OracleOptions& options)
      : table_(std::move(table)), options_(options) {}
  static absl::Span<const OptionField<OracleOptions>> Fields();
  // q = 0.5 is the point; q = 0 and 1 are the bounds of all truths that this point is compatible with.
  int32_t Quantile(const SequenceView& sequence, double q) const override;
  void OnFinished(const SequenceView&) override {}

 private:
  std::shared_ptr<const OracleTable> table_;
  OracleOptions options_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_PREDICT_ORACLE_H_
