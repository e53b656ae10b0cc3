#include "server/cost/cost_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "scheduler/cost/step_cost.h"
#include "tests/server/traces/temp_file.h"

namespace orrery {
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

TEST(CostProfile, OtherFormsGoThrough) {
  for (const char* form : {"table:tokens=1:5", "online", "online:constant:3", "tile:c=1,a=2,b0=128"}) {
    const auto profile = LoadCostProfile(form);
    ASSERT_TRUE(profile.ok()) << profile.status();
    EXPECT_EQ(profile->cost, form);
  }
}

constexpr char kRuns[] =
    "model,hardware,prompt_size,batch_size,token_size,prompt_time,token_time,tensor_parallel\n"
    "m,x,128,1,9,30,10,2\nm,x,128,1,9,90,12,2\nm,x,128,1,9,32,11,2\n"
    "m,x,128,2,9,70,14,2\nm,x,256,1,9,60,10.5,2\nm,x,128,4,9,150,18,2\n"
    "m,x,128,1,9,1,1,4\n";

TEST(CostProfile, MakesATableOfMeasuredRuns) {
  const TempFile file(kRuns);
  // Medians of repetitions; 256 tokens are a single prompt's, 512 a batch's.
  const auto profile = LoadCostProfile(file.path() + "#x/m/tp2");
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ(profile->cost, "table:tokens=1:11/2:14/4:18/128:32/256:60/512:150");
  EXPECT_EQ(LoadCostProfile(file.path())->cost, profile->cost) << "the first one without a name";
  EXPECT_EQ(LoadCostProfile(file.path() + "#x/m/tp4")->cost, "table:tokens=1:1/128:1");
  EXPECT_THAT(std::string(LoadCostProfile(file.path() + "#x/m/tp8").status().message()),
              ::testing::HasSubstr("did you mean 'x/m/tp"));
  const TempFile bad(std::string(kRuns) + "m,x,128,1,9,slow,1,4\n"), cut(std::string(kRuns) + "m,x\n");
  EXPECT_THAT(std::string(LoadCostProfile(bad.path()).status().message()), ::testing::HasSubstr(":9: "));
  EXPECT_THAT(std::string(LoadCostProfile(cut.path()).status().message()), ::testing::HasSubstr(":9: "));
}

// The published measurements, and the fit to them within the error it states (p95 31 %).
TEST(CostProfile, PublishedRunsAgreeWithTheirFit) {
  const char* shared = std::getenv("ORRERY_SHARED");
  const char* source = std::getenv("ORRERY_SOURCE_DIR");
  const std::string root =
      shared != nullptr ? shared : std::string(source != nullptr ? source : ".") + "/../shared";
  const std::string profiles = root + "/data/profiles/";
  const auto table = LoadCostProfile(profiles + "splitwise/perf_model.csv.xz#a100-80gb/llama2-70b/tp4");
  if (!table.ok()) GTEST_SKIP() << "shared data is not here: " << table.status().message();
  const auto fit = LoadCostProfile(profiles + "linear_cost_fits.json#a100-80gb/llama2-70b/tp4");
  ASSERT_TRUE(fit.ok()) << fit.status();
  const auto by_table = *ParseStepCost(table->cost), by_fit = *ParseStepCost(fit->cost);
  for (const int32_t prompt : {256, 512, 1024, 2048, 4096, 8192}) {
    StepShape shape;
    shape.AddChunk(0, prompt);
    const double ms = by_table->Predict(shape).milliseconds();
    EXPECT_NEAR(by_fit->Predict(shape).milliseconds(), ms, 0.31 * ms) << prompt;
  }
  for (const int32_t decodes : {1, 8, 32, 64}) {
    StepShape shape;
    for (int32_t i = 0; i < decodes; ++i) shape.AddDecode(576);
    const double ms = by_table->Predict(shape).milliseconds();
    EXPECT_NEAR(by_fit->Predict(shape).milliseconds(), ms, 0.15 * ms) << decodes;
  }
}

}  // namespace
}  // namespace orrery
