#include "server/simulate/recorder.h"

#include <functional>
#include <optional>

#include "gtest/gtest.h"

namespace orrery::simulate {
namespace {

Time At(double seconds) { return Time{static_cast<int64_t>(seconds * 1e9)}; }

// One step and one arrival every 10 ms; `waiting(i)` requests wait at the i-th.
std::optional<double> GrowthOf(int steps, const std::function<int64_t(int)>& waiting) {
  Recorder recorder({{}}, 1, nullptr);
  for (int i = 0; i < steps; ++i) {
    sim::StepFacts step;
    step.start = At(0.01 * i);
    step.num_waiting = static_cast<int32_t>(waiting(i));
    recorder.OnStep(step);
    sim::SimRequest request;
    request.arrival = step.start;
    recorder.OnRequestEnd(request, {});
  }
  return recorder.WaitingGrowth();
}

TEST(Recorder, WaitingGrowthIsTheSlopeOverTheSecondHalfPerArrival) {
  EXPECT_NEAR(*GrowthOf(10'000, [](int) { return 7; }), 0, 1e-9);
  EXPECT_NEAR(*GrowthOf(10'000, [](int i) { return i / 4; }), 0.25, 2e-3);
  // What happened in the first half does not count.
  EXPECT_NEAR(*GrowthOf(10'000, [](int i) { return i < 5'000 ? 0 : i - 5'000; }), 1, 2e-2);
  EXPECT_NEAR(*GrowthOf(10'000, [](int i) { return i < 5'000 ? i : 5'000; }), 0, 2e-2);
  EXPECT_EQ(GrowthOf(4, [](int i) { return i; }), std::nullopt);
}

TEST(Recorder, RewardIsCountedOverTheTimeInWhichTheMeasuredRequestsArrived) {
  Recorder recorder({{.name = "a", .slo = {}, .reward = {2, 10}}, {.name = "b", .slo = {}, .reward = {0, 5}}},
                    4, nullptr);
  EXPECT_EQ(recorder.RewardPerWorker(), std::nullopt);
  const auto end = [&](double arrival, int32_t of, sim::Outcome outcome, bool started, bool measured = true) {
    sim::SimRequest request;
    request.arrival = At(arrival);
    request.class_index = of;
    sim::RequestEnd at;
    at.outcome = outcome;
    at.measured = measured;
    at.end = At(99);
    at.made_tokens = 1;
    if (started) at.first_token = At(arrival + 1);
    recorder.OnRequestEnd(request, at);
  };
  end(1, 0, sim::Outcome::kCompleted, true, /*measured=*/false);
  end(10, 0, sim::Outcome::kCompleted, true);   // 12
  end(30, 1, sim::Outcome::kCompleted, true);   // 5
  end(20, 0, sim::Outcome::kCancelled, true);   // 2
  end(15, 0, sim::Outcome::kCancelled, false);  // 0
  EXPECT_DOUBLE_EQ(*recorder.RewardPerWorker(), 19.0 / 20 / 4);
  EXPECT_EQ(Recorder({{}}, 1, nullptr).RewardPerWorker(), std::nullopt);
}

}  // namespace
}  // namespace orrery::simulate
