// Saturated runs beside a simulator of a few lines that shares no code with ours: slots, loads and a barrier.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

#include "scheduler/base/random.h"
#include "tests/router/sim/sim_harness.h"

namespace orrery::sim {
namespace {

SimRequest Draw(uint64_t i) {
  const auto prompt = 1 + static_cast<int32_t>(2000 * UniformAt(5, i));
  const auto output = 1 + static_cast<int32_t>(60 * UniformAt(6, i));
  return Row(0, prompt, output);
}

struct Reference {
  double imbalance = 0, idle = 0;
  int64_t tokens = 0;
};

// Free slots are filled in worker order from one queue; then every active request emits a token.
Reference SimulateFcfs(int workers, int slots, int warmup, int steps) {
  struct Active {
    int64_t kv;
    int left;
  };
  std::vector<std::vector<Active>> active(workers);
  uint64_t next = 0;
  Reference out;
  for (int step = 0; step < warmup + steps; ++step) {
    int64_t most = 0, sum = 0, count = 0;
    for (auto& worker : active) {
      while (static_cast<int>(worker.size()) < slots) {
        const SimRequest row = Draw(next++);
        worker.push_back({row.prompt_tokens, row.output_tokens});
      }
      int64_t load = 0;
      for (const Active& a : worker) load += a.kv;
      most = std::max(most, load);
      sum += load;
      count += static_cast<int64_t>(worker.size());
    }
    if (step >= warmup) {
      const double full = static_cast<double>(most) * workers;
      out.imbalance += (full - static_cast<double>(sum)) / steps;
      out.idle += (1 - static_cast<double>(sum) / full) / steps;
      out.tokens += count;
    }
    for (auto& worker : active) {
      for (Active& a : worker) ++a.kv, --a.left;
      std::erase_if(worker, [](const Active& a) { return a.left == 0; });
    }
  }
  return out;
}

TEST(Saturated, FcfsEqualsTheReferenceToTheLastStep) {
  for (const auto& [barrier, fast_forward] : {std::pair{true, true}, {false, true}, {true, false}}) {
    SimOptions options = SmallOptions(8, 16);
    options.fast_forward = fast_forward;
    options.worker.options.num_blocks = 1 << 20;
    options.router = "fcfs";
    options.barrier = barrier;
    options.prefill = false;
    options.pool = 32;
    options.warmup_steps = 100;
    options.steps = 400;
    EndlessSource source(Draw);
    Told told;
    const SimReport report = MustSimulate(options, "constant:10", &source, &told);
    const Reference expected = SimulateFcfs(8, 16, 100, 400);
    EXPECT_NEAR(report.imbalance_mean, expected.imbalance, 1e-6 * expected.imbalance);
    EXPECT_NEAR(report.idle_fraction_mean, expected.idle, 1e-9);
    EXPECT_EQ(report.measured_tokens, expected.tokens);
    EXPECT_EQ(report.steps, barrier ? 400 : 3200);
    EXPECT_DOUBLE_EQ((report.end - report.begin).seconds(), 4.0);
    EXPECT_EQ(report.passed_steps > 0, fast_forward);
    // Nothing was computed but one token per step and sequence.
    EXPECT_EQ(report.counters.computed_tokens, report.counters.generated_tokens);
  }
}

TEST(Saturated, EveryRouterKeepsThePool) {
  for (const char* router : {"fcfs", "round-robin", "jsq-tokens"}) {
    SimOptions options = SmallOptions(4, 8);
    options.router = router;
    options.prefill = false;
    options.pool = 16;
    options.warmup_steps = 50;
    options.steps = 200;
    EndlessSource source(Draw);
    Told told;
    const SimReport report = MustSimulate(options, "constant:10", &source, &told);
    // One pool for all leaves no slot empty; those that choose a worker on arrival leave some.
    if (options.router == "fcfs") {
      for (const StepFacts& step : told.steps) EXPECT_EQ(step.num_running, 8);
      EXPECT_EQ(report.measured_tokens, 4 * 8 * 200);
    }
    EXPECT_GT(report.measured_tokens, 0.9 * 4 * 8 * 200) << router;
    options.fast_forward = false;
    EndlessSource same(Draw);
    Told slow;
    const SimReport stepwise = MustSimulate(options, "constant:10", &same, &slow);
    EXPECT_EQ(Difference(slow.log, told.log), "") << router;
    EXPECT_EQ(Summary(stepwise), Summary(report));
    EXPECT_GT(report.passed_steps, 0);
  }
}

}  // namespace
}  // namespace orrery::sim
