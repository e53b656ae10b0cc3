// A linear cost model that learns from the steps it sees: recursive least squares on
//   ms = base + per_seq * decodes + per_kv * decode_context + per_token * prefill_tokens
//      + per_token_sq * prefill_squares,        all coefficients >= 0
// by the relative error of each step, older steps counting less and less. With x the features of a step, y
// its measured time, w = 1 / y and f the forgetting factor, every step brings
//   A = f A + (w x)(w x)', b = f b + w x w y;  coefficients = argmin over c >= 0 of c' A c / 2 - b' c,
// which is the weighted least squares over all steps so far, exactly (Gram form: nothing winds up when a kind
// of step is rare). Directions of which nothing is known (any more) keep their last value. Since no
// coefficient is negative, times are positive (at least a microsecond once anything is known) and grow with
// every feature.
//
// A prior is another model: its predictions for a grid of 30 steps count like three measured ones. Outliers:
// once 32 steps were seen, a step further from its prediction than 6 mean absolute deviations (of the
// logarithm, at least a factor of 2 and at most of 8) counts as being that far, by the error it then has;
// every eight of them in a row on one side are no outliers but a change: all that was believed before counts
// 1/256 from then on. Errors are those of predictions made before the step was learnt.
//
// Observe costs a few microseconds at most and allocates nothing. Same steps, same predictions.
#ifndef ORRERY_SCHEDULER_COST_ONLINE_COST_H_
#define ORRERY_SCHEDULER_COST_ONLINE_COST_H_

#include <array>
#include <cstdint>

#include "scheduler/cost/step_cost.h"

namespace orrery {

class OnlineStepCost final : public StepCostModel {
 public:
  static constexpr size_t kFeatures = 5;
  using Vector = std::array<double, kFeatures>;

  // `forgetting` in (0, 1]. The default remembers some ten thousand steps.
  explicit OnlineStepCost(const StepCostModel* prior = nullptr, double forgetting = 0.9999);

  Duration Predict(const StepShape& shape) const override;
  void Observe(const StepShape& shape, Duration took) override;

  // base, per_seq, per_kv, per_token, per_token_sq; ms.
  Vector coefficients() const;
  int64_t observed() const { return observed_; }
  int64_t outliers() const { return outliers_; }

 private:
  using Matrix = std::array<Vector, kFeatures>;
  static Vector Features(const StepShape& shape);
  double PredictMs(const Vector& x) const;
  // The measured time, or as far from the prediction as an outlier may be.
  double Guard(double predicted, double measured);
  void Doubt();
  void Learn(const Vector& x, double ms, double count);
  void Solve();

  double forgetting_;
  Matrix gram_{};  // of scaled, weighted features
  Vector moment_{};
  Vector scaled_{};       // coefficients of the scaled features
  double deviation_ = 0;  // running mean of |log(measured / predicted)|
  int64_t observed_ = 0, outliers_ = 0;
  int32_t streak_ = 0;  // outliers in a row, negative below the prediction
};

// The least value of c' A c / 2 - b' c over c >= 0 for a symmetric positive definite A, by trying every set
// of positive coefficients.
OnlineStepCost::Vector SolveNonNegative(
    const std::array<OnlineStepCost::Vector, OnlineStepCost::kFeatures>& a, const OnlineStepCost::Vector& b);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_COST_ONLINE_COST_H_
