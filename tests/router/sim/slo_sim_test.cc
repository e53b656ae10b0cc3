// Placement by latency targets in whole runs: nobody tells the router which worker is slow.
#include <gtest/gtest.h>

#include <cmath>

#include "scheduler/base/random.h"
#include "tests/router/sim/sim_harness.h"

namespace orrery::sim {
namespace {

constexpr char kStepCost[] =
    "linear:alpha_decode=10,per_seq=0.1,per_kv_token=0.0001,alpha_prefill=10,per_token=0.05";

std::vector<SimRequest> Traffic(double rate, int32_t priority) {
  RandomStream random(5);
  std::vector<SimRequest> rows;
  double at = 0;
  for (int i = 0; i < 600; ++i) {
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

Outcomes Serve(const std::string& router, double rate, int32_t priority = 0) {
  SimOptions options = SmallOptions(3, 32);
  options.router = router;
  options.slowdown = {1, 1, 4};
  const std::vector<SimRequest> rows = Traffic(rate, priority);
  ListSource source(rows);
  Told told;
  MustSimulate(options, kStepCost, &source, &told);
  Outcomes outcomes;
  EXPECT_EQ(told.ends.size(), rows.size());
  for (const auto& [serial, ends] : told.ends) {
    EXPECT_EQ(ends.size(), 1u);
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
  EXPECT_GT(slo.within, 540u);
}

TEST(SloSim, OverloadedItShedsAndKeepsItsPromisesToTheRest) {
  const Outcomes turns = Serve("round-robin", 80), slo = Serve("slo", 80, -1);
  EXPECT_EQ(slo.completed + slo.rejected, 600u);
  EXPECT_GT(slo.rejected, 50u);
  EXPECT_GT(slo.within, turns.within);
  EXPECT_GT(slo.within * 10, slo.completed * 7);
}

}  // namespace
}  // namespace orrery::sim
