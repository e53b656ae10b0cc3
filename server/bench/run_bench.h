// Runs one load test from its options to its reports.
#ifndef ORRERY_SERVER_BENCH_RUN_BENCH_H_
#define ORRERY_SERVER_BENCH_RUN_BENCH_H_

#include "absl/status/statusor.h"
#include "server/bench/bench_options.h"
#include "server/bench/schedule.h"

namespace orrery::bench {

// The schedule's options from the command line's. InvalidArgument ("flag: why") for contradictions, unknown
// names and a malformed class file.
absl::StatusOr<ScheduleOptions> ResolveOptions(const BenchOptions& options);

// The whole command: results on standard output, progress and warnings on standard error, files as asked.
// Returns the exit code: 0 done, 1 internal, 2 bad options or data, 5 no server, 6 some requests failed
// (refusals for load aside). An interrupt (SIGINT) ends the run early and reports what there is.
int RunBench(const BenchOptions& options);

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_RUN_BENCH_H_
