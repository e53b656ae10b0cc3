#include "scheduler/policy/wait_limits.h"

#include <algorithm>
#include <cmath>

#include "scheduler/base/text.h"

namespace orrery {
namespace {

// KV tokens over all stages of one request.
double Weight(const LengthClass& c) { return (c.output + 1) * (c.prompt + c.output / 2); }

}  // namespace

absl::StatusOr<FluidPoint> FluidEquilibrium(absl::Span<const LengthClass> classes, double d0, double d1) {
  double load = 0;
  for (const LengthClass& c : classes) load += c.rate * Weight(c);
  if (d1 * load >= 1) {
    return absl::ResourceExhaustedError(
        Cat("the rates ask for ", d1 * load, " seconds of attention per second; at most 1 is possible"));
  }
  FluidPoint point;
  point.step_s = d0 / (1 - d1 * load);
  point.tokens = point.step_s * load;
  for (const LengthClass& c : classes) point.per_stage.push_back(c.rate * point.step_s);
  return point;
}

FluidPoint AtThresholds(absl::Span<const LengthClass> classes, absl::Span<const double> per_stage, double d0,
                        double d1) {
  FluidPoint point;
  for (size_t j = 0; j < classes.size(); ++j) point.tokens += per_stage[j] * Weight(classes[j]);
  point.per_stage.assign(per_stage.begin(), per_stage.end());
  point.step_s = d0 + d1 * point.tokens;
  return point;
}

void BookingLimits(absl::Span<const LengthClass> classes, double total, std::vector<Booking>* limits) {
  double sum = 0;
  for (const LengthClass& c : classes) sum += c.rate * (c.output + 1);
  limits->clear();
  for (const LengthClass& c : classes) {
    const double share = sum > 0 ? total * c.rate * (c.output + 1) / sum : 0;
    limits->push_back({share, std::max(1, static_cast<int32_t>(share / (c.output + 1)))});
  }
}

void NestedSegments(absl::Span<const LengthClass> classes, double total, std::vector<Segment>* segments) {
  segments->clear();
  double surviving = 0, sum = 0;
  for (const LengthClass& c : classes) surviving += c.rate;
  int32_t begin = 0;
  for (const LengthClass& c : classes) {
    const auto end = static_cast<int32_t>(c.output);
    segments->push_back({begin, end, (end - begin) * surviving, 0});
    sum += segments->back().total;
    surviving -= c.rate;
    begin = end;
  }
  for (Segment& segment : *segments) {
    segment.total *= sum > 0 ? total / sum : 0;
    // A hair below the quotient: 300 / 10 in floating point is not 31 bookings.
    segment.per_stage =
        std::max(1, static_cast<int32_t>(std::ceil(segment.total / (segment.end - segment.begin) - 1e-9)));
  }
}

}  // namespace orrery
