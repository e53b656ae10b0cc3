// The arithmetic of WAIT and Nested WAIT (arXiv:2504.11320): the fluid equilibrium of a worker that serves
// classes of requests at given rates, and from one number of bookings the thresholds of each class or segment
// of stages. A request with output l' passes the stages 0 (its prompt) to l'.
#ifndef ORRERY_SCHEDULER_POLICY_WAIT_LIMITS_H_
#define ORRERY_SCHEDULER_POLICY_WAIT_LIMITS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace orrery {

struct LengthClass {
  double prompt = 0;  // tokens
  double output = 0;  // tokens
  double rate = 0;    // requests per second, or any other weight where only the mix matters
};

// A step takes d0 + d1 * K seconds with K tokens of KV in the batch.
struct FluidPoint {
  double step_s = 0;
  std::vector<double> per_stage;  // requests of each class at each of its stages
  double tokens = 0;              // KV in the batch
};
// RESOURCE_EXHAUSTED where the load is more than any batch can carry (d1 * sum(rate * w) >= 1), with
// w = (output + 1) (prompt + output / 2).
absl::StatusOr<FluidPoint> FluidEquilibrium(absl::Span<const LengthClass> classes, double d0, double d1);
// The same quantities for given thresholds per stage; per_stage is copied. The thresholds are large enough
// where rate * step_s < per_stage for every class.
FluidPoint AtThresholds(absl::Span<const LengthClass> classes, absl::Span<const double> per_stage, double d0,
                        double d1);

struct Booking {
  double share = 0;       // of all bookings, requests
  int32_t per_stage = 0;  // >= 1
};
// `total` bookings over classes by rate * (output + 1).
void BookingLimits(absl::Span<const LengthClass> classes, double total, std::vector<Booking>* limits);

struct Segment {
  int32_t begin = 0, end = 0;  // stages [begin, end)
  double total = 0;            // bookings, requests
  int32_t per_stage = 0;
};
// Segments between consecutive distinct outputs. `classes` in strictly ascending output, all >= 1.
void NestedSegments(absl::Span<const LengthClass> classes, double total, std::vector<Segment>* segments);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_WAIT_LIMITS_H_
