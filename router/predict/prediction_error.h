// How far predictions were off lately: the absolute errors of the last ones, in the unit they came in.
#ifndef ORRERY_ROUTER_PREDICT_PREDICTION_ERROR_H_
#define ORRERY_ROUTER_PREDICT_PREDICTION_ERROR_H_

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace orrery {

class PredictionError {
 public:
  static constexpr size_t kWindow = 256;

  void Add(double predicted, double actual) {
    errors_[static_cast<size_t>(count_++) % kWindow] = std::abs(predicted - actual);
  }
  int64_t count() const { return count_; }  // ever
  double mean_absolute() const {
    double sum = 0;
    for (size_t i = 0; i < size(); ++i) sum += errors_[i];
    return size() == 0 ? 0 : sum / static_cast<double>(size());
  }
  // The least error that nine of ten do not exceed.
  double p90() const {
    if (size() == 0) return 0;
    auto sorted = errors_;
    const size_t rank = (size() * 9 + 9) / 10 - 1;
    std::nth_element(sorted.begin(), sorted.begin() + rank, sorted.begin() + size());
    return sorted[rank];
  }

 private:
  size_t size() const { return std::min(kWindow, static_cast<size_t>(count_)); }

  std::array<double, kWindow> errors_{};
  int64_t count_ = 0;
};

// Of predictions made beforehand, ms.
struct PredictionErrors {
  PredictionError ttft;  // when a request was placed
  PredictionError step;  // of the workers' steps: a token of everybody in it
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_PREDICT_PREDICTION_ERROR_H_
