#include "scheduler/planning/dual_bound.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace orrery {
namespace {

// Of the volume algorithm: how much of a subgradient enters the average, how the step changes after steps
// that fail, gain, and gain along the average, and how far above the best value the target stands.
constexpr double kMostNew = 0.1, kLeastNew = 0.01;
constexpr int kPatience = 20;
constexpr double kShorter = 0.66, kLonger = 1.1;
constexpr double kTarget = 1.05;

class Climb {
 public:
  Climb(const UnitInstance& instance, int64_t rounds)
      : instance_(instance),
        rounds_(static_cast<size_t>(rounds)),
        capacity_(static_cast<double>(instance.kv_capacity_tokens)),
        price_(rounds_ + 1, 0.0),
        best_(price_),
        held_(price_),
        average_(price_),
        sum_(price_),
        weighted_(price_) {}

  double Run(int climbs, const std::function<bool()>& go_on) {
    double bound = Value();
    average_ = held_;
    double target = kTarget * bound, step = 0.1, newest = kMostNew;
    int failed = 0;
    for (int k = 0; k < climbs && (go_on == nullptr || go_on()); ++k) {
      double norm = 0.0;
      for (size_t r = 1; r <= rounds_; ++r) norm += Square(Excess(average_[r], best_[r]));
      if (norm < 1e-12) break;
      const double length = step * (target - bound) / norm;
      for (size_t r = 1; r <= rounds_; ++r) {
        price_[r] = std::max(0.0, best_[r] + length * Excess(average_[r], best_[r]));
      }
      const double value = Value();
      double along = 0.0;
      for (size_t r = 1; r <= rounds_; ++r) along += (held_[r] - capacity_) * Excess(average_[r], best_[r]);
      Mix(newest);
      if (value > bound) {
        failed = 0;
        bound = value;
        best_ = price_;
        if (along > 0) step = std::min(2.0, step * kLonger);
        if (bound > target / kTarget * 1.02) target = kTarget * bound;
      } else if (++failed == kPatience) {
        failed = 0;
        step = std::max(1e-4, step * kShorter);
        newest = std::max(kLeastNew, newest * 0.9);
      }
    }
    return bound;
  }

 private:
  static double Square(double x) { return x * x; }
  // The direction; a price of 0 goes nowhere but up.
  double Excess(double held, double price) const {
    const double excess = held - capacity_;
    return price > 0 ? excess : std::max(0.0, excess);
  }

  void Mix(double newest) {
    for (size_t r = 1; r <= rounds_; ++r) average_[r] += newest * (held_[r] - average_[r]);
  }

  // L(price_); held_ becomes what the minimising starts hold. From the last round on starts only cost more.
  double Value() {
    for (size_t r = 1; r <= rounds_; ++r) {
      sum_[r] = sum_[r - 1] + price_[r];
      weighted_[r] = weighted_[r - 1] + price_[r] * static_cast<double>(r);
    }
    std::fill(held_.begin(), held_.end(), 0.0);
    double value = -capacity_ * sum_[rounds_];
    const auto last = static_cast<int64_t>(rounds_);
    for (const UnitRequest& request : instance_.requests) {
      const int64_t o = request.output_tokens;
      double least = HUGE_VAL;
      int64_t start = request.arrival;
      for (int64_t t = request.arrival; t <= std::max(request.arrival, last); ++t) {
        const auto from = static_cast<size_t>(std::min(t, last)),
                   to = static_cast<size_t>(std::min(t + o, last));
        const double cost = static_cast<double>(t + o - request.arrival) +
                            static_cast<double>(request.prompt_tokens - t) * (sum_[to] - sum_[from]) +
                            (weighted_[to] - weighted_[from]);
        if (cost < least) {
          least = cost;
          start = t;
        }
      }
      value += least;
      for (int64_t r = start + 1; r <= std::min(start + o, last); ++r) {
        held_[static_cast<size_t>(r)] += static_cast<double>(request.prompt_tokens + r - start);
      }
    }
    return value;
  }

  const UnitInstance& instance_;
  const size_t rounds_;
  const double capacity_;
  // By round, from 1 on.
  std::vector<double> price_, best_;
  std::vector<double> held_, average_;  // tokens
  std::vector<double> sum_, weighted_;  // prefix sums of price and of price * round
};

}  // namespace

double DualBound(const UnitInstance& instance, int64_t rounds, int climbs,
                 const std::function<bool()>& go_on) {
  if (instance.requests.empty()) return 0;
  return Climb(instance, rounds).Run(climbs, go_on);
}

}  // namespace orrery
