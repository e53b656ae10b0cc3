#include "scheduler/cost/table_cost.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace orrery {
namespace {

using ::testing::HasSubstr;

constexpr char kText[] =
    "table:tokens=1:4/100:8/200:20,prefill=10000:1/40000:7,decode=1x100:0.1/1x1100:0.2/9x100:0.5/9x1100:1.3";

double Ms(const StepCostModel& cost, const StepShape& shape) { return cost.Predict(shape).milliseconds(); }

StepShape Decodes(int count, int32_t context) {
  StepShape shape;
  for (int i = 0; i < count; ++i) shape.AddDecode(context);
  return shape;
}

TEST(TableCost, InterpolatesByHand) {
  const auto cost = ParseStepCost(kText);
  ASSERT_TRUE(cost.ok()) << cost.status();
  EXPECT_EQ((*cost)->Predict({}).ns, 0);
  // tokens(1) and the grid's own points.
  EXPECT_NEAR(Ms(**cost, Decodes(1, 100)), 4 + 0.1, 1e-6);
  EXPECT_NEAR(Ms(**cost, Decodes(9, 1100)), 4 + 4 * 8. / 99 + 1.3, 1e-6);
  // Halfway in sequences and context: (0.1 + 0.2 + 0.5 + 1.3) / 4; below the least context a line from
  // nothing.
  EXPECT_NEAR(Ms(**cost, Decodes(5, 600)), 4 + 4 * 4. / 99 + 0.525, 1e-6);
  EXPECT_NEAR(Ms(**cost, Decodes(1, 50)), 4 + 0.05, 1e-6);
  // A prompt of 150 tokens: 22,500 squares.
  StepShape prompt;
  prompt.AddChunk(0, 150);
  EXPECT_NEAR(Ms(**cost, prompt), 14 + 1 + 6 * 12500. / 30000, 1e-6);
  // Mixed: the rows share the first part.
  StepShape mixed = Decodes(9, 1100);
  mixed.AddChunk(0, 150);
  EXPECT_NEAR(Ms(**cost, mixed), 14 + 12 * 9. / 100 + 1.3 + 3.5, 1e-6);
}

TEST(TableCost, GoesOnInALineBeyondItsPoints) {
  const auto cost = *ParseStepCost(kText);
  StepShape prompt;
  prompt.AddChunk(0, 400);
  EXPECT_NEAR(Ms(*cost, prompt), 20 + 200 * 0.12 + 7 + 120000 * 6. / 30000, 1e-6);
  EXPECT_NEAR(Ms(*cost, Decodes(17, 1100)), 4 + 4 * 16. / 99 + 1.3 + 1.1, 1e-6);
  EXPECT_NEAR(Ms(*cost, Decodes(9, 2100)), 4 + 4 * 8. / 99 + 2.1, 1e-6);
}

TEST(TableCost, NeverFalls) {
  const auto cost = *ParseStepCost("table:tokens=1:4/8:3/16:5");
  EXPECT_NEAR(Ms(*cost, Decodes(8, 10)), 4, 1e-6);
  EXPECT_NEAR(Ms(*cost, Decodes(12, 10)), 4.5, 1e-6);
}

TEST(TableCost, WritesWhatItReads) {
  const auto table = ParseCostTable(std::string_view(kText).substr(6));
  ASSERT_TRUE(table.ok());
  EXPECT_EQ(FormatCostTable(*table), kText);
  const auto tokens_alone = ParseCostTable("tokens=3:0.1");
  ASSERT_TRUE(tokens_alone.ok());
  EXPECT_EQ(FormatCostTable(*tokens_alone), "table:tokens=3:0.1");
}

TEST(TableCost, RefusesWhatIsNoTable) {
  const auto message = [](const std::string& text) {
    return std::string(ParseStepCost(text).status().message());
  };
  EXPECT_THAT(message("table:"), HasSubstr("tokens has no points"));
  EXPECT_THAT(message("table:token=1:1"), HasSubstr("did you mean 'tokens'"));
  EXPECT_THAT(message("table:tokens=1:1/1:2"), HasSubstr("point 2"));
  EXPECT_THAT(message("table:tokens=1:-1"), HasSubstr("point 1"));
  EXPECT_THAT(message("table:tokens=1:1,prefill=0:0/1e-320:0"), HasSubstr("prefill: point 2"));
  EXPECT_THAT(message("table:tokens=1:1,prefill=1e-320:0"), HasSubstr("prefill: point 1"));
  EXPECT_THAT(message("table:tokens=nan:1"), HasSubstr("point 1"));
  EXPECT_THAT(message("table:tokens=1:inf"), HasSubstr("point 1"));
  EXPECT_THAT(message("table:tokens=1"), HasSubstr("'1' is not a point"));
  EXPECT_THAT(message("table:tokens=1:1,decode=0x1:1"), HasSubstr("sequences"));
  EXPECT_THAT(message("table:tokens=1:1,decode=4x1:1/2x1:1"), HasSubstr("sequences"));
  std::string many = "table:tokens=0:0";
  for (size_t i = 1; i <= kMaxTablePoints; ++i) many += "/" + std::to_string(i) + ":1";
  EXPECT_FALSE(message(many).empty());
  EXPECT_THAT(message("online:online"), HasSubstr("prior"));
  EXPECT_THAT(message("online:table:tokens=1"), HasSubstr("not a point"));
}

}  // namespace
}  // namespace orrery
