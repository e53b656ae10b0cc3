// One finished simulation, and several as a comparison: what the reports are made of.
#ifndef ORRERY_SERVER_SIMULATE_RUN_RESULT_H_
#define ORRERY_SERVER_SIMULATE_RUN_RESULT_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "router/sim/simulation.h"
#include "server/bench/measurement.h"
#include "server/simulate/recorder.h"

namespace orrery::simulate {

struct RunResult {
  std::string policy;  // what was compared, or the scheduler
  uint64_t seed = 0;
  std::optional<double> rate;
  sim::SimReport report;
  bench::Measurement block;
  DecisionSummary decisions;
  std::optional<bench::Summary> decision_us;
  double max_decision_us = 0, max_ttft_ms = 0;
  std::optional<double> jain_fairness, waiting_growth, reward_per_worker_s;
  double wall_s = 0;
  std::unique_ptr<Recorder> recorder;  // for plots; null where none are drawn
};

// The measurement block with the simulator's own keys. Everything but wall_s and policy_us is a function of
// the inputs.
nlohmann::ordered_json RunJson(const RunResult& run);

// Mean over the seeds of one policy, with the 95 % interval of Student's t; none with a single seed.
struct MetricSummary {
  std::string policy, metric;
  double mean = 0;
  std::optional<double> low, high;
};
// Metrics that a run leaves undefined are left out. In order of the policies, then of the metrics.
std::vector<MetricSummary> SummarizeRuns(absl::Span<const RunResult> runs);
nlohmann::ordered_json ComparisonJson(absl::Span<const RunResult> runs);

// For people.
std::string RunText(const RunResult& run);
std::string ComparisonText(absl::Span<const RunResult> runs);

}  // namespace orrery::simulate

#endif  // ORRERY_SERVER_SIMULATE_RUN_RESULT_H_
