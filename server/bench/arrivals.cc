#include "server/bench/arrivals.h"

#include <cmath>
#include <numbers>

#include "server/bench/unknown_name.h"

namespace orrery::bench {

absl::StatusOr<ArrivalKind> ParseArrivalKind(absl::string_view name) {
  if (name == "poisson") return ArrivalKind::kPoisson;
  if (name == "gamma") return ArrivalKind::kGamma;
  if (name == "constant") return ArrivalKind::kConstant;
  return UnknownName("arrival", name, {"poisson", "gamma", "constant"});
}

absl::string_view ArrivalKindName(ArrivalKind kind) {
  switch (kind) {
    case ArrivalKind::kPoisson:
      return "poisson";
    case ArrivalKind::kGamma:
      return "gamma";
    case ArrivalKind::kConstant:
      return "constant";
  }
  return "";
}

double ArrivalProcess::NextGap() {
  if (std::isinf(spec_.rate)) return 0;
  switch (spec_.kind) {
    case ArrivalKind::kPoisson:
      return Exponential() / spec_.rate;
    case ArrivalKind::kGamma:
      return Gamma(spec_.shape) / (spec_.shape * spec_.rate);
    case ArrivalKind::kConstant:
      return 1 / spec_.rate;
  }
  return 0;
}

double ArrivalProcess::Exponential() { return -std::log1p(-random_.Uniform()); }

// Box and Muller's transform; one of its two values is enough here.
double ArrivalProcess::Normal() {
  const double radius = std::sqrt(2 * Exponential());
  return radius * std::cos(2 * std::numbers::pi * random_.Uniform());
}

// Marsaglia and Tsang, "A simple method for generating gamma variables" (2000); below shape 1 by
// Gamma(a) = Gamma(a + 1) U^(1/a).
double ArrivalProcess::Gamma(double shape) {
  if (shape < 1) {
    const double boost = std::exp(-Exponential() / shape);
    return Gamma(shape + 1) * boost;
  }
  const double d = shape - 1.0 / 3;
  const double c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = Normal();
    const double root = 1 + c * x;
    if (root <= 0) continue;
    const double v = root * root * root;
    if (-Exponential() < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

}  // namespace orrery::bench
