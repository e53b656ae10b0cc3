// Turns what a simulation tells into the measurement block of the load generator, and into series over time
// for the plots. Memory does not grow with the number of requests.
#ifndef ORRERY_SERVER_SIMULATE_RECORDER_H_
#define ORRERY_SERVER_SIMULATE_RECORDER_H_

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "router/sim/observer.h"
#include "router/sim/simulation.h"
#include "server/bench/measurement.h"
#include "server/bench/slo.h"
#include "server/simulate/latency_sketch.h"
#include "server/simulate/time_series.h"
#include "server/simulate/workload.h"

namespace orrery::simulate {

// A class of requests as the report shows it; a single class without a name is not broken down.
struct ReportClass {
  std::string name;
  bench::SloTargets slo;
  ClassReward reward{};
};

// What policies decided by, over all steps.
struct DecisionSummary {
  std::string policy, objective;
  double value_sum = 0, bound_sum = 0;
  int64_t decisions = 0, bounded = 0, work = 0;
};

class Recorder final : public sim::Observer {
 public:
  // `progress` is called now and then with (requests ended, simulated time, sequence-steps).
  using Progress = std::function<void(int64_t, Time, int64_t)>;
  Recorder(std::vector<ReportClass> classes, int32_t num_workers, Progress progress);

  void OnRequestEnd(const sim::SimRequest& request, const sim::RequestEnd& end) override;
  void OnTokenGaps(int32_t class_index, Duration gap, int64_t count) override;
  void OnStep(const sim::StepFacts& step) override;
  void OnDecision(const DecisionRecord& why, int64_t wall_ns) override;

  // `saturated`: tokens count where they were made, not only those of requests that completed.
  bench::Measurement Block(const sim::SimReport& report, bool saturated) const;
  // Jain's index of E2E over output tokens, over completed requests; 1 is fair. Nothing when there are none.
  std::optional<double> JainFairness() const;
  // Slope of the number of requests waiting, by least squares over the second half of the arrivals, per
  // arrival: 0 where the load is carried, 1 where nothing is. Nothing for too short a run.
  std::optional<double> WaitingGrowth() const;
  // What the measured requests earned for each worker and second of the time in which they arrived: the drain
  // after the last arrival is not part of it. Nothing where no class earns anything.
  std::optional<double> RewardPerWorker() const;
  double max_ttft_ms() const { return all_.ttft.max(); }
  const LatencySketch& decision_us() const { return decision_us_; }
  const DecisionSummary& decisions() const { return decisions_; }

  // Per class (or all as one): TTFT, TPOT, ITL, E2E in milliseconds.
  struct Latencies {
    std::string name;
    const LatencySketch *ttft, *tpot, *itl, *e2e;
  };
  std::vector<Latencies> latencies() const;
  const TimeSeries& waiting() const { return waiting_; }
  const TimeSeries& running() const { return running_; }
  const TimeSeries& kv_tokens() const { return kv_tokens_; }

 private:
  struct Part {
    bench::Measurement counts;
    LatencySketch ttft, tpot, itl, e2e;
    int64_t good = 0, good_tokens = 0;
    bool slo_given = false;
  };
  static void Add(const sim::SimRequest& request, const sim::RequestEnd& end, const bench::SloTargets& slo,
                  Part* block);
  static bench::Measurement Finish(const Part& block, double seconds);

  const std::vector<ReportClass> classes_;
  const Progress progress_;
  Part all_;
  std::vector<Part> by_class_;  // empty with a single class
  double slowness_sum_ = 0, slowness_squares_ = 0;
  int64_t slowness_count_ = 0;
  LatencySketch decision_us_;
  DecisionSummary decisions_;
  // Of the workers, as of their last step.
  struct Load {
    int64_t kv_tokens = 0, running = 0, waiting = 0;
  };
  std::vector<Load> loads_;
  Load total_;
  TimeSeries waiting_, running_, kv_tokens_;
  struct Second {
    int64_t at = -1, tokens = 0;
  };
  std::array<Second, 64> seconds_;  // the latest: steps may end this far out of order
  int64_t busiest_second_ = 0;
  Time last_arrival_;
  double reward_ = 0;
  Time first_measured_ = Time::Never(), last_measured_;  // arrivals
  int64_t ended_ = 0, sequence_steps_ = 0, until_progress_ = 0;
};

}  // namespace orrery::simulate

#endif  // ORRERY_SERVER_SIMULATE_RECORDER_H_
