// Speed of the simulator: fcfs at 64 workers x 72 slots, always full, one core. Beside it a bare loop over
// arrays of the same size that only counts (no queue, no KV, no policy): what memory alone would allow. Aim:
// 20 million sequence-steps per second.
//   build/bin/simulator_bench [STEPS]
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "router/sim/simulation.h"
#include "scheduler/base/random.h"

namespace orrery::sim {
namespace {

constexpr int32_t kWorkers = 64, kSlots = 72;

double CpuSeconds() {
  timespec now = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

SimRequest Draw(uint64_t i) {
  SimRequest request;
  request.prompt_tokens = 1 + static_cast<int32_t>(2000 * UniformAt(1, i));
  request.output_tokens = 1 + static_cast<int32_t>(400 * UniformAt(2, i));
  request.max_tokens = 1024;
  return request;
}

class Endless final : public RequestSource {
 public:
  absl::StatusOr<bool> Next(SimRequest* request) override {
    *request = Draw(next_++);
    return true;
  }

 private:
  uint64_t next_ = 0;
};

class Silent final : public Observer {
 public:
  void OnRequestEnd(const SimRequest&, const RequestEnd&) override {}
  void OnTokenGaps(int32_t, Duration, int64_t) override {}
  void OnStep(const StepFacts&) override {}
  void OnDecision(const DecisionRecord&, int64_t) override {}
};

double SimulatorRate(int64_t steps) {
  SimOptions options;
  options.num_workers = kWorkers;
  options.router = "fcfs";
  options.prefill = false;
  options.pool = 4 * kWorkers;
  options.steps = steps;
  options.admission.max_queue_tokens = int64_t{1} << 60;
  options.worker.options.num_blocks = 1 << 20;
  options.worker.options.max_num_seqs = kSlots;
  options.worker.options.max_context = 1 << 14;
  const auto cost = *ParseStepCost("linear:alpha_decode=5,per_seq=0.02,per_kv_token=0.0001");
  Endless source;
  Silent silent;
  const double began = CpuSeconds();
  const auto report = Simulate(options, *cost, &source, &silent);
  if (!report.ok()) std::abort();
  return static_cast<double>(report->sequence_steps) / (CpuSeconds() - began);
}

// Every step of every worker: age each sequence, end those that are done, sum the loads.
double BareLoopRate(int64_t steps) {
  struct Row {
    int64_t kv_tokens;
    int32_t left;
  };
  std::vector<Row> rows(size_t{kWorkers} * kSlots);
  uint64_t next = 0;
  const auto draw = [&] {
    const SimRequest request = Draw(next++);
    return Row{request.prompt_tokens, request.output_tokens};
  };
  for (Row& row : rows) row = draw();
  int64_t load = 0;
  const double began = CpuSeconds();
  for (int64_t step = 0; step < steps; ++step) {
    for (Row& row : rows) {
      load += ++row.kv_tokens;
      if (--row.left == 0) row = draw();
    }
  }
  const double seconds = CpuSeconds() - began;
  if (load == 0) std::abort();
  return static_cast<double>(steps) * static_cast<double>(rows.size()) / seconds;
}

}  // namespace
}  // namespace orrery::sim

int main(int argc, char** argv) {
  const int64_t steps = argc > 1 ? std::max(1L, std::atol(argv[1])) : 2000;
  double simulator = 0, bare = 0;
  for (int run = 0; run < 3; ++run) {
    simulator = std::max(simulator, orrery::sim::SimulatorRate(steps));
    bare = std::max(bare, orrery::sim::BareLoopRate(steps));
  }
  std::printf("fcfs, %d workers x %d slots, best of 3 by CPU time, million sequence-steps/s\n",
              orrery::sim::kWorkers, orrery::sim::kSlots);
  std::printf("  simulator  %8.2f\n  bare loop  %8.2f\n", simulator * 1e-6, bare * 1e-6);
}
