// A class of requests in a mixed load: its share or rate, its data and what its requests carry.
#ifndef ORRERY_SERVER_BENCH_TRAFFIC_CLASS_H_
#define ORRERY_SERVER_BENCH_TRAFFIC_CLASS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/bench/dataset.h"
#include "server/bench/slo.h"

namespace orrery::bench {

struct TrafficClass {
  std::string name;
  double share = 1;            // of the whole load, relative to the other classes; used without rates
  std::optional<double> rate;  // requests per second of its own arrival process
  DatasetSpec dataset;
  int32_t priority = 0;
  std::string tenant;
  SloTargets slo;
  double cancel_probability = 0;
};

// Reads a YAML list of {name, share, dataset, rate, priority, tenant, slo, cancel_probability}. `dataset` is
// a name, with the file and lengths of `defaults`, or a mapping {name, path, input_len, output_len,
// range_ratio}; `slo` is the string of --slo or a mapping {ttft, tpot, e2e} in milliseconds. What a class
// leaves out comes from `defaults`. InvalidArgument names the file, the line and the field: unknown or
// repeated names, a share or rate that is not above 0, rates on some classes but not on all.
absl::StatusOr<std::vector<TrafficClass>> LoadClasses(const std::string& path, const TrafficClass& defaults);

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_TRAFFIC_CLASS_H_
