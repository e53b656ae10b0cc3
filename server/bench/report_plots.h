// The plots of a load test's report.
#ifndef ORRERY_SERVER_BENCH_REPORT_PLOTS_H_
#define ORRERY_SERVER_BENCH_REPORT_PLOTS_H_

#include <vector>

#include "server/bench/result_json.h"
#include "server/bench/svg_plot.h"

namespace orrery::bench {

// Distributions of TTFT, TPOT, ITL and E2E latency: one line per class, or the whole with its `_sent` twin.
std::vector<Plot> LatencyPlots(const RunResult& result);
// Streams open and tokens per second over the run.
std::vector<Plot> TimelinePlots(const RunResult& result);
// One point per request: TTFT against the time it was due, E2E latency against its output tokens.
std::vector<Plot> RequestPlots(const RunResult& result);

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_REPORT_PLOTS_H_
