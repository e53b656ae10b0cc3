// Arrival processes of an open-loop load test: gaps between sends as a pure function of a seed. The gaps are
// drawn independently and never rescaled to meet a total time, so counts have the variance that the process
// has.
#ifndef ORRERY_SERVER_BENCH_ARRIVALS_H_
#define ORRERY_SERVER_BENCH_ARRIVALS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scheduler/base/random.h"

namespace orrery::bench {

enum class ArrivalKind { kPoisson, kGamma, kConstant };
absl::StatusOr<ArrivalKind> ParseArrivalKind(absl::string_view name);
absl::string_view ArrivalKindName(ArrivalKind kind);

struct ArrivalSpec {
  ArrivalKind kind = ArrivalKind::kPoisson;
  double rate = 0;   // requests per second, > 0; infinity: all at once
  double shape = 1;  // kGamma: 1 is Poisson, below 1 burstier (CV = 1 / sqrt(shape)), above 1 smoother
};

class ArrivalProcess {
 public:
  ArrivalProcess(ArrivalSpec spec, uint64_t seed, uint32_t stream) : spec_(spec), random_(seed, stream) {}
  // Seconds to the next arrival, the first one counted from the start of the run; mean 1 / rate.
  double NextGap();

 private:
  double Exponential();
  double Normal();
  double Gamma(double shape);  // mean `shape`, scale 1

  ArrivalSpec spec_;
  RandomStream random_;
};

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_ARRIVALS_H_
