#include "scheduler/cost/online_cost.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace orrery {
namespace {

constexpr size_t kN = OnlineStepCost::kFeatures;
using Vector = OnlineStepCost::Vector;
using Matrix = std::array<Vector, kN>;

// Features of about one for a step of a busy engine, which keeps the Gram matrix well conditioned.
constexpr Vector kScale = {1, 1.0 / 64, 1.0 / 65536, 1.0 / 512, 1.0 / (1 << 20)};
// Pull towards the last coefficients, against a Gram matrix whose entries are about one per step.
constexpr double kInertia = 1e-9;
constexpr double kLeastMs = 1e-3;
constexpr double kPriorWeight = 0.1;  // of a step that the prior predicts, in measured ones
constexpr int64_t kTrusted = 32;      // steps before outliers are looked for
constexpr double kDeviations = 6;
constexpr double kLeastLimit = 0.7, kMostLimit = 2.1;  // of |log ratio|: factors of 2 and 8
constexpr int32_t kChange = 8;                         // outliers in a row that are a change
constexpr double kDoubt = 1.0 / 256;                   // of what was believed before it
constexpr double kDeviationRate = 0.02;

// Cholesky on the rows and columns in `set`. False: not positive definite.
bool SolveSubset(const Matrix& a, const Vector& b, unsigned set, Vector* c) {
  std::array<size_t, kN> index{};
  size_t n = 0;
  for (size_t i = 0; i < kN; ++i) {
    (*c)[i] = 0;
    if (set >> i & 1) index[n++] = i;
  }
  Matrix l{};
  Vector z{};
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = a[index[i]][index[j]];
      for (size_t k = 0; k < j; ++k) sum -= l[i][k] * l[j][k];
      if (i == j) {
        if (!(sum > 0)) return false;
        l[i][i] = std::sqrt(sum);
      } else {
        l[i][j] = sum / l[j][j];
      }
    }
    double rest = b[index[i]];
    for (size_t k = 0; k < i; ++k) rest -= l[i][k] * z[k];
    z[i] = rest / l[i][i];
  }
  for (size_t i = n; i-- > 0;) {
    double rest = z[i];
    for (size_t k = i + 1; k < n; ++k) rest -= l[k][i] * (*c)[index[k]];
    (*c)[index[i]] = rest / l[i][i];
  }
  return true;
}

double Objective(const Matrix& a, const Vector& b, const Vector& c) {
  double value = 0;
  for (size_t i = 0; i < kN; ++i) {
    double row = 0;
    for (size_t j = 0; j < kN; ++j) row += a[i][j] * c[j];
    value += c[i] * (row / 2 - b[i]);
  }
  return value;
}

}  // namespace

Vector SolveNonNegative(const Matrix& a, const Vector& b) {
  Vector best{}, c{};
  double least = 0;  // of all coefficients 0
  const auto consider = [&](unsigned set) {
    if (!SolveSubset(a, b, set, &c) || *std::min_element(c.begin(), c.end()) < 0) return false;
    if (const double value = Objective(a, b, c); value < least) {
      least = value;
      best = c;
    }
    return true;
  };
  constexpr unsigned kAll = (1u << kN) - 1;
  if (consider(kAll)) return best;  // no constraint binds: nothing is better
  for (unsigned set = 1; set < kAll; ++set) consider(set);
  return best;
}

OnlineStepCost::OnlineStepCost(const StepCostModel* prior, double forgetting) : forgetting_(forgetting) {
  if (prior == nullptr) return;
  for (const int32_t decodes : {0, 1, 16, 128}) {
    for (const int32_t context : {128, 2048}) {
      for (const int32_t chunk : {0, 64, 512, 2048}) {
        StepShape shape;
        for (int32_t i = 0; i < decodes; ++i) shape.AddDecode(context);
        if (chunk > 0) shape.AddChunk(context, chunk);
        if (const double ms = prior->Predict(shape).milliseconds(); ms > 0)
          Learn(Features(shape), ms, kPriorWeight);
      }
    }
  }
  Solve();
}

Vector OnlineStepCost::Features(const StepShape& shape) {
  const Vector x = {1, static_cast<double>(shape.decodes), static_cast<double>(shape.decode_context),
                    static_cast<double>(shape.prefill_tokens), shape.prefill_squares};
  Vector scaled;
  for (size_t i = 0; i < kN; ++i) scaled[i] = x[i] * kScale[i];
  return scaled;
}

double OnlineStepCost::PredictMs(const Vector& x) const {
  double ms = 0;
  for (size_t i = 0; i < kN; ++i) ms += scaled_[i] * x[i];
  return ms;
}

Duration OnlineStepCost::Predict(const StepShape& shape) const {
  const bool knows = std::any_of(scaled_.begin(), scaled_.end(), [](double c) { return c > 0; });
  if (shape.tokens() == 0 || !knows) return {};
  return Duration::Nanoseconds(std::llround(std::clamp(PredictMs(Features(shape)), kLeastMs, 1e7) * 1e6));
}

double OnlineStepCost::Guard(double predicted, double measured) {
  if (predicted <= 0) return measured;
  const double off = std::log(measured / predicted);
  const double limit = std::clamp(kDeviations * deviation_, kLeastLimit, kMostLimit);
  if (observed_ < kTrusted || std::abs(off) <= limit) {
    streak_ = 0;
    deviation_ +=
        (std::abs(off) - deviation_) * std::max(kDeviationRate, 1.0 / static_cast<double>(observed_ + 1));
    return measured;
  }
  ++outliers_;
  const int32_t side = off > 0 ? 1 : -1;
  streak_ = streak_ * side > 0 ? streak_ + side : side;
  if (std::abs(streak_) % kChange == 0) Doubt();
  return std::abs(streak_) >= kChange ? measured : predicted * std::exp(side * limit);
}

// Steps count by relative error, so those of a machine that became r times slower weigh 1 / r^2 of the old.
void OnlineStepCost::Doubt() {
  for (size_t i = 0; i < kN; ++i) {
    for (double& entry : gram_[i]) entry *= kDoubt;
    moment_[i] *= kDoubt;
  }
}

void OnlineStepCost::Observe(const StepShape& shape, Duration took) {
  if (shape.tokens() == 0 || took.ns <= 0) return;
  const Vector x = Features(shape);
  const double measured = std::max(took.milliseconds(), kLeastMs);
  const double believed = Guard(PredictMs(x), measured);
  ++observed_;
  const double error = std::min(1.0, believed / measured);  // of an outlier the weight it would have had
  Learn(x, believed, error * error);
  Solve();
}

void OnlineStepCost::Learn(const Vector& x, double ms, double count) {
  const double weight = count / (ms * ms);
  for (size_t i = 0; i < kN; ++i) {
    for (size_t j = 0; j < kN; ++j) gram_[i][j] = forgetting_ * gram_[i][j] + weight * x[i] * x[j];
    moment_[i] = forgetting_ * moment_[i] + weight * x[i] * ms;
  }
}

// The inertia keeps the matrix definite, and decides where the steps say nothing.
void OnlineStepCost::Solve() {
  Matrix a = gram_;
  Vector b = moment_;
  double largest = 0;
  for (size_t i = 0; i < kN; ++i) largest = std::max(largest, gram_[i][i]);
  for (size_t i = 0; i < kN; ++i) {
    const double inertia = kInertia * std::max(largest, std::numeric_limits<double>::min());
    a[i][i] += inertia;
    b[i] += inertia * scaled_[i];
  }
  scaled_ = SolveNonNegative(a, b);
}

Vector OnlineStepCost::coefficients() const {
  Vector c = scaled_;
  for (size_t i = 0; i < kN; ++i) c[i] *= kScale[i];
  return c;
}

}  // namespace orrery
