#include "server/simulate/cost_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/cost/step_cost.h"
#include "tests/server/traces/temp_file.h"

namespace orrery::simulate {
namespace {

constexpr char kFits[] = R"({"units": "ms", "kernel_composed": [
  {"gpu": "a", "model": "m", "tp": 2, "weights": "fp8", "kv_capacity_tokens": 5000,
   "decode_ms": {"alpha": 10, "per_seq": 0.5, "per_kv_token": 0.001},
   "prefill_ms": {"alpha": 6, "per_token": 0.05, "per_token_sq": 0.000001}},
  {"gpu": "b", "model": "m", "tp": 1, "weights": "fp8",
   "decode_ms": {"alpha": 1, "per_seq": 0, "per_kv_token": 0},
   "prefill_ms": {"alpha": 1, "per_token": 0, "per_token_sq": -1}}]})";

TEST(CostProfile, ReadsAnEntryByNameAndTheFirstWithout) {
  const TempFile file(kFits);
  for (const char* name : {"", "#a/m/tp2/fp8"}) {
    const auto profile = LoadCostProfile(file.path() + name);
    ASSERT_TRUE(profile.ok()) << profile.status();
    EXPECT_EQ(profile->kv_capacity_tokens, 5000);
    StepShape shape;
    shape.AddDecode(100);
    shape.AddDecode(300);
    shape.AddChunk(1000, 200);
    // max(10, 6) + 0.5 * 2 + 0.001 * 400 + 0.05 * 200 + 1e-6 * (1200^2 - 1000^2)
    EXPECT_NEAR((*ParseStepCost(profile->cost))->Predict(shape).milliseconds(), 21.84, 1e-6);
  }
}

TEST(CostProfile, SaysWhatIsMissing) {
  const TempFile file(kFits), list("[]"), empty("{}");
  const auto message = [](const std::string& spec) {
    return std::string(LoadCostProfile(spec).status().message());
  };
  EXPECT_THAT(message(file.path() + "#a/m/tp1/fp8"), ::testing::HasSubstr("did you mean 'a/m/tp2/fp8'"));
  EXPECT_THAT(message(file.path() + "#b/m/tp1/fp8"), ::testing::HasSubstr("prefill_ms.per_token_sq"));
  EXPECT_THAT(message(list.path()), ::testing::HasSubstr("not a JSON object"));
  EXPECT_THAT(message(empty.path()), ::testing::HasSubstr("no entry"));
  EXPECT_THAT(message("/nonexistent"), ::testing::HasSubstr("/nonexistent"));
  EXPECT_THAT(message("constant:x"), ::testing::HasSubstr("constant"));
  EXPECT_EQ(LoadCostProfile("constant:20")->cost, "constant:20");
}

}  // namespace
}  // namespace orrery::simulate
