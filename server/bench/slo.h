// Latency targets of a request, and whether a measured request met them.
#ifndef ORRERY_SERVER_BENCH_SLO_H_
#define ORRERY_SERVER_BENCH_SLO_H_

#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace orrery::bench {

struct SloTargets {  // milliseconds; absent: no target
  std::optional<double> ttft_ms;
  std::optional<double> tpot_ms;
  std::optional<double> e2e_ms;
  bool any() const { return ttft_ms || tpot_ms || e2e_ms; }
};

// "ttft=MS,tpot=MS,e2e=MS", each at most once, at least one, all > 0.
absl::StatusOr<SloTargets> ParseSlo(absl::string_view text);

// Sets one target by name; InvalidArgument for an unknown name, a value that is not > 0 or a second setting.
absl::Status SetSloTarget(absl::string_view name, double value_ms, SloTargets* targets);

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_SLO_H_
