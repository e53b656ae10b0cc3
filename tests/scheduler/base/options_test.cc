#include "scheduler/base/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace orrery {
namespace {

using ::testing::HasSubstr;

struct TestOptions {
  int32_t budget = 5;
  double share = 0.25;
  bool eager = true;
};

constexpr OptionField<TestOptions> kFields[] = {
    {"budget", &TestOptions::budget, 0, 100, "tokens"},
    {"share", &TestOptions::share, 0, 1, "of the pool"},
    {"eager", &TestOptions::eager, "at once"},
};

absl::StatusOr<TestOptions> Read(std::string_view text) {
  auto spec = ParseNamedSpec(text);
  if (!spec.ok()) return spec.status();
  return ReadOptions<TestOptions>(*spec, kFields);
}

TEST(Options, ReadTypedValues) {
  const auto options = Read("p:share=0.5,eager=off,budget=7");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->budget, 7);
  EXPECT_EQ(options->share, 0.5);
  EXPECT_FALSE(options->eager);
  EXPECT_EQ(Read("p")->budget, 5) << "defaults stay";
}

TEST(Options, DescribeThemselves) {
  const auto infos = DescribeOptions<TestOptions>(kFields);
  ASSERT_EQ(infos.size(), 3u);
  EXPECT_EQ(infos[0].type, "int");
  EXPECT_EQ(infos[0].default_value, 5);
  EXPECT_EQ(infos[1].type, "real");
  EXPECT_EQ(infos[1].high, 1);
  EXPECT_EQ(infos[2].type, "flag");
  EXPECT_EQ(infos[2].default_value, 1);
}

TEST(Options, RefuseWhatTheyDoNotUnderstand) {
  const std::pair<const char*, const char*> kCases[] = {
      {"", "has no name"},
      {":a=1", "has no name"},
      {"p:", "not of the form key=value"},
      {"p:budget", "not of the form key=value"},
      {"p:=3", "not of the form key=value"},
      {"p:budget=", "not of the form key=value"},
      {"p:budget=1,budget=2", "given twice"},
      {"p:budged=1", "did you mean 'budget'"},
      {"p:budget=1.5", "not of type int"},
      {"p:budget=101", "outside [0, 100]"},
      {"p:budget=99999999999999999999", "not of type int"},
      {"p:share=nan", "not of type real"},
      {"p:share=inf", "not of type real"},
      {"p:share=-0.1", "outside [0, 1]"},
      {"p:eager=maybe", "not of type flag"},
  };
  for (const auto& [text, message] : kCases) {
    const auto options = Read(text);
    ASSERT_FALSE(options.ok()) << text;
    EXPECT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(options.status().message()), HasSubstr(message)) << text;
  }
  EXPECT_FALSE(Read(std::string(5000, 'a')).ok());
}

}  // namespace
}  // namespace orrery
