// The schedule of a load test: every request with its class and, in an open loop, its intended send time.
// A pure function of the options and the seed, drawn before the run and saved with the result, so that a run
// can be repeated exactly.
#ifndef ORRERY_SERVER_BENCH_SCHEDULE_H_
#define ORRERY_SERVER_BENCH_SCHEDULE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "server/bench/arrivals.h"
#include "server/bench/dataset.h"
#include "server/bench/request_spec.h"
#include "server/bench/traffic_class.h"

namespace orrery::bench {

enum class LoadMode {
  kOpenLoop,    // sends at the times of an arrival process
  kClosedLoop,  // a fixed number of requests in flight; the next one goes out as one ends
  kTraceTimes,  // sends at the times of the trace
};

struct ScheduleOptions {
  LoadMode mode = LoadMode::kOpenLoop;
  // Measured requests; left out: the rows of the dataset, at most kDefaultRequests.
  std::optional<int64_t> num_requests;
  int64_t warmup = 0;         // requests before the measured ones, from the same process and data
  ArrivalSpec arrival;        // kOpenLoop; its rate is replaced by the classes' own where they have them
  int32_t concurrency = 1;    // kClosedLoop
  double time_scale = 1;      // kTraceTimes: the trace's times are multiplied by it (2 takes twice as long)
  int32_t scale_context = 0;  // > 0: all lengths go through ScaleLengths, one factor for all classes
  bool ignore_eos = false;    // for every request, whatever its dataset says
  uint64_t seed = 0;
  std::vector<TrafficClass> classes;  // at least one

  static constexpr int64_t kDefaultRequests = 1000;
  static constexpr int64_t kMaxRequests = 1'000'000;
};

struct Schedule {
  LoadMode mode = LoadMode::kOpenLoop;
  int32_t concurrency = 0;            // kClosedLoop
  int64_t warmup = 0;                 // the first so many requests are not measured
  std::vector<RequestSpec> requests;  // open loop: in order of their intended times
  std::vector<TrafficClass> classes;
  double length_factor = 1;  // what --scale-lengths multiplied lengths by
};

// Rows of a dataset are used in file order and, but for kTraceTimes, again from the front when they run out;
// synthetic prompts differ all the same. With several classes, each request's class is drawn by share, or,
// when the classes have rates, each has its own arrival process and the processes are merged.
// InvalidArgument for options that contradict each other or the data.
absl::StatusOr<Schedule> BuildSchedule(const ScheduleOptions& options, const TokenCounter& counter);

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_SCHEDULE_H_
