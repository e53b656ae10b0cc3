// Placement by latency targets in whole runs: nobody tells the router which worker is slow.
#include <gtest/gtest.h>

#include <cmath>

#include "scheduler/base/random.h"
#include "tests/router/sim/sim_harness.h"

namespace orrery::sim {
namespace {

constexpr char kStepCost[] =
    "linear:alpha_decode=10,per_seq=0.1,per_kv_token=0.0001,alpha_prefill=10,per_token=0.05";

std::vector<SimRequest> Traffic(double rate, int32_t priority, int count) {
  RandomStream random(5);
  std::vector<SimRequest> rows;
  double at = 0;
  for (int i = 0; i < count; ++i) {
    at -= std::log1p(-random.Uniform()) / rate;
    rows.push_back(Row(at, 200 + static_cast<int32_t>(random.Below(800)),
                       20 + static_cast<int32_t>(random.Below(80)), 200));
    rows.back().slo = {Duration::Milliseconds(500), Duration::Milliseconds(30)};
    rows.back().priority = priority;
  }
  return rows;
}

struct Outcomes {
  size_t completed = 0, rejected = 0, within = 0;
};

// Of those after the first `learning`, while the router knows nothing of the workers.
Outcomes Serve(const std::string& router, double rate, int32_t priority = 0, int count = 600,
               uint64_t learning = 0) {
  SimOptions options = SmallOptions(3, 32);
  options.router = router;
  options.slowdown = {1, 1, 4};
  const std::vector<SimRequest> rows = Traffic(rate, priority, count);
  ListSource source(rows);
  Told told;
  MustSimulate(options, kStepCost, &source, &told);
  Outcomes outcomes;
  EXPECT_EQ(told.ends.size(), rows.size());
  for (const auto& [serial, ends] : told.ends) {
    EXPECT_EQ(ends.size(), 1u);
    if (serial < learning) continue;
    const RequestEnd& end = ends[0];
    outcomes.rejected += end.outcome == Outcome::kRejected;
    if (end.outcome != Outcome::kCompleted) continue;
    ++outcomes.completed;
    const SimRequest& row = rows[serial];
    const double tpot_ms = (end.end - end.first_token).milliseconds() / std::max(1, end.made_tokens - 1);
    outcomes.within +=
        end.first_token - row.arrival <= row.slo.ttft && tpot_ms <= row.slo.tpot.milliseconds();
  }
  return outcomes;
}

TEST(SloSim, MoreWithinTheirTargetsThanRoundRobinWhereOneWorkerIsSlow) {
  const Outcomes turns = Serve("round-robin", 16), slo = Serve("slo", 16);
  EXPECT_EQ(turns.completed, 600u);
  EXPECT_EQ(slo.completed, 600u) << "nobody of priority 0 is refused";
  EXPECT_LT(turns.within, 420u);
  EXPECT_GT(slo.within, 580u);
}

// Some 28 requests a second are what these workers can do within the targets.
TEST(SloSim, OverloadedItShedsAndKeepsItsPromisesToTheRest) {
  for (const double rate : {40.0, 80.0}) {
    const Outcomes turns = Serve("round-robin", rate, 0, 1200, 100);
    const Outcomes slo = Serve("slo", rate, -1, 1200, 100);
    EXPECT_EQ(turns.completed, 1100u);
    EXPECT_EQ(slo.completed + slo.rejected, 1100u);
    EXPECT_GT(slo.rejected, 150u);
    EXPECT_GT(slo.within, turns.within) << rate;
    EXPECT_GT(slo.within * 10, slo.completed * (rate < 50 ? 9 : 7)) << rate;
  }
}

}  // namespace
}  // namespace orrery::sim
