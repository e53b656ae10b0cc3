// What `orrery plan capacity` promises (arXiv:2605.04595, its three published rows), asked of the simulator:
// 10 % below mu (1 - delta) the queue stands, 10 % above mu it grows.
#include <gtest/gtest.h>

#include <cmath>

#include "router/sim/simulation.h"
#include "scheduler/base/random.h"
#include "scheduler/planning/capacity.h"

namespace orrery::sim {
namespace {

constexpr int64_t kKvTokens = 131'000;
constexpr int32_t kChunk = 512;
constexpr uint64_t kRequests = 20'000;

struct PublishedRow {
  int32_t longest_prompt, longest_output;  // uniform from 10
  double step_ms, rate_per_s;
};

class PoissonSource final : public RequestSource {
 public:
  PoissonSource(const PublishedRow& row, double rate) : row_(row), rate_(rate), random_(1) {}
  absl::StatusOr<bool> Next(SimRequest* request) override {
    if (made_++ == kRequests) return false;
    at_s_ -= std::log1p(-random_.Uniform()) / rate_;
    *request = SimRequest{};
    request->arrival = last_ = Time{} + Duration::Seconds(at_s_);
    request->prompt_tokens = 10 + static_cast<int32_t>(random_.Below(row_.longest_prompt - 9));
    request->output_tokens = 10 + static_cast<int32_t>(random_.Below(row_.longest_output - 9));
    request->max_tokens = 4096;
    return true;
  }
  Time last() const { return last_; }

 private:
  const PublishedRow row_;
  const double rate_;
  RandomStream random_;
  uint64_t made_ = 0;
  double at_s_ = 0;
  Time last_;
};

// Least squares of the waiting count on time, while requests arrive and from `begin` on.
class Trend final : public Observer {
 public:
  Trend(const PoissonSource& source, Time begin) : source_(source), begin_(begin) {}
  void OnRequestEnd(const SimRequest&, const RequestEnd& end) override {
    completed += end.outcome == Outcome::kCompleted;
  }
  void OnTokenGaps(int32_t, Duration, int64_t) override {}
  void OnDecision(const DecisionRecord&, int64_t) override {}
  void OnStep(const StepFacts& step) override {
    if (step.start < begin_ || step.start > source_.last()) return;
    const double t = (step.start - begin_).seconds(), w = step.num_waiting + step.pooled;
    n_ += 1, t_ += t, w_ += w, tt_ += t * t, tw_ += t * w;
  }
  double slope() const { return (n_ * tw_ - t_ * w_) / (n_ * tt_ - t_ * t_); }
  uint64_t completed = 0;

 private:
  const PoissonSource& source_;
  const Time begin_;
  double n_ = 0, t_ = 0, w_ = 0, tt_ = 0, tw_ = 0;
};

// Of the waiting requests per second, relative to the arrivals.
double Growth(const PublishedRow& row, double rate) {
  SimOptions options;
  options.admission.max_queue_tokens = int64_t{1} << 60;
  WorkerOptions& worker = options.worker.options;
  worker.num_blocks = static_cast<int32_t>(kKvTokens / worker.block_tokens);
  worker.max_num_seqs = 1024;
  worker.max_waiting = 1 << 20;
  worker.max_step_tokens = kChunk;
  worker.max_context = static_cast<int32_t>(kKvTokens);
  const auto cost = NewLinearCost({.alpha_decode = row.step_ms, .alpha_prefill = row.step_ms});
  PoissonSource source(row, rate);
  Trend trend(source, Time{} + Duration::Seconds(static_cast<double>(kRequests) / rate / 2));
  const auto report = Simulate(options, *cost, &source, &trend);
  EXPECT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(trend.completed, kRequests);
  return trend.slope() / rate;
}

TEST(CapacityStability, TheSimulatorIsStableWhereThePlannerSaysSo) {
  for (const PublishedRow& row :
       {PublishedRow{1600, 1600, 37.2, 3.2632}, {2133, 1066, 43.0, 3.9563}, {1066, 2133, 33.7, 2.9016}}) {
    CapacityInput input;
    input.kv_capacity_tokens = kKvTokens;
    input.prefill_chunk_tokens = kChunk;
    input.mean_step_s = row.step_ms * 1e-3;
    input.lengths = *IndependentMoments(UniformLength{10, row.longest_prompt},
                                        UniformLength{10, row.longest_output}, kChunk);
    const auto plan = PlanCapacity(input);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_NEAR(plan->memory_rate_per_s, row.rate_per_s, 5e-5);
    const double below = Growth(row, 0.9 * plan->sufficient_rate_per_s);
    const double above = Growth(row, 1.1 * plan->memory_rate_per_s);
    std::printf("mu %.4f/s: queue grows by %.3f %% of the arrivals 10 %% below, %.2f %% 10 %% above\n",
                plan->memory_rate_per_s, 100 * below, 100 * above);
    EXPECT_LT(below, 0.01);
    EXPECT_GT(above, 0.03);
  }
}

}  // namespace
}  // namespace orrery::sim
