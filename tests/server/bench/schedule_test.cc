#include "server/bench/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/server/traces/temp_file.h"

namespace orrery::bench {
namespace {

using ::testing::HasSubstr;

ScheduleOptions Random(int64_t n, double rate) {
  ScheduleOptions options;
  options.num_requests = n;
  options.arrival.rate = rate;
  options.classes.resize(1);
  options.classes[0].dataset.input_len = 16;
  options.classes[0].dataset.output_len = 8;
  return options;
}

std::string ErrorOf(const ScheduleOptions& options) {
  return std::string(BuildSchedule(options, {}).status().message());
}

TEST(Schedule, IsAFunctionOfTheSeed) {
  ScheduleOptions options = Random(200, 10);
  options.classes[0].cancel_probability = 0.5;
  const auto a = BuildSchedule(options, {});
  const auto b = BuildSchedule(options, {});
  options.seed = 1;
  const auto c = BuildSchedule(options, {});
  ASSERT_TRUE(a.ok() && b.ok() && c.ok());
  int equal = 0;
  for (size_t i = 0; i < 200; ++i) {
    EXPECT_EQ(a->requests[i].intended, b->requests[i].intended);
    EXPECT_EQ(a->requests[i].prompt_seed, b->requests[i].prompt_seed);
    EXPECT_EQ(a->requests[i].cancel_after_tokens, b->requests[i].cancel_after_tokens);
    equal += a->requests[i].intended == c->requests[i].intended;
    if (i > 0) {
      EXPECT_LT(a->requests[i - 1].intended, a->requests[i].intended);
      EXPECT_NE(a->requests[i - 1].prompt_seed, a->requests[i].prompt_seed);
    }
  }
  EXPECT_EQ(equal, 0);
}

// The total time of a run of n requests at rate r is Gamma(n, r): it must vary by sqrt(n) / r.
TEST(Schedule, ArrivalsAreNotRescaled) {
  const int n = 100;
  const int runs = 400;
  double mean = 0;
  double squares = 0;
  for (int seed = 0; seed < runs; ++seed) {
    ScheduleOptions options = Random(n, 5);
    options.seed = seed;
    const double last = BuildSchedule(options, {})->requests.back().intended.seconds();
    mean += last / runs;
    squares += last * last / runs;
  }
  EXPECT_NEAR(mean, n / 5.0, 0.4);
  EXPECT_NEAR(std::sqrt(squares - mean * mean), std::sqrt(n) / 5.0, 0.2);
}

TEST(Schedule, WarmupComesOnTopAndFirst) {
  ScheduleOptions options = Random(10, std::numeric_limits<double>::infinity());
  options.warmup = 3;
  const auto schedule = BuildSchedule(options, {});
  ASSERT_TRUE(schedule.ok());
  EXPECT_EQ(schedule->requests.size(), 13u);
  EXPECT_EQ(schedule->warmup, 3);
  EXPECT_EQ(schedule->requests.back().intended, Time{});
}

TEST(Schedule, RowsRepeatButPromptsDoNot) {
  TempFile file("num_prefill_tokens,num_decode_tokens\n5,6\n7,8\n");
  ScheduleOptions options = Random(5, 1);
  options.classes[0].dataset.kind = DatasetKind::kLengths;
  options.classes[0].dataset.paths = {file.path()};
  auto schedule = BuildSchedule(options, {});
  ASSERT_TRUE(schedule.ok()) << schedule.status();
  EXPECT_EQ(schedule->requests[4].shape.prompt_tokens, 5);
  EXPECT_NE(schedule->requests[4].prompt_seed, schedule->requests[0].prompt_seed);
  options.num_requests.reset();
  schedule = BuildSchedule(options, {});
  EXPECT_EQ(schedule->requests.size(), 2u);  // what the file has
}

TEST(Schedule, TraceTimes) {
  TempFile file("num_prefill_tokens,num_decode_tokens,arrived_at\n5,6,10\n7,8,11.5\n9,9,11\n");
  ScheduleOptions options = Random(3, 0);
  options.mode = LoadMode::kTraceTimes;
  options.time_scale = 2;
  options.classes[0].dataset.kind = DatasetKind::kLengths;
  options.classes[0].dataset.paths = {file.path()};
  auto schedule = BuildSchedule(options, {});
  ASSERT_TRUE(schedule.ok()) << schedule.status();
  EXPECT_EQ(schedule->requests[0].intended, Time{});
  EXPECT_EQ(schedule->requests[1].intended, Time{2'000'000'000});
  EXPECT_EQ(schedule->requests[1].shape.prompt_tokens, 9);  // sent in order of time
  EXPECT_EQ(schedule->requests[2].intended, Time{3'000'000'000});
  options.num_requests = 4;
  EXPECT_THAT(ErrorOf(options), HasSubstr("3 rows"));
  options.num_requests = 3;
  options.time_scale = 0;
  EXPECT_THAT(ErrorOf(options), HasSubstr("time-scale"));
  ScheduleOptions no_times = Random(3, 0);
  no_times.mode = LoadMode::kTraceTimes;
  EXPECT_THAT(ErrorOf(no_times), HasSubstr("no arrival times"));
}

TEST(Schedule, SharesAreProbabilities) {
  ScheduleOptions options = Random(20'000, 100);
  options.classes.resize(3, options.classes[0]);
  options.classes[0].share = 1;
  options.classes[1].share = 2;
  options.classes[2].share = 5;
  const auto schedule = BuildSchedule(options, {});
  ASSERT_TRUE(schedule.ok());
  std::vector<double> counts(3, 0);
  for (const RequestSpec& request : schedule->requests) counts[request.class_index] += 1.0 / 20'000;
  EXPECT_NEAR(counts[0], 1 / 8.0, 0.01);
  EXPECT_NEAR(counts[1], 2 / 8.0, 0.01);
  EXPECT_NEAR(counts[2], 5 / 8.0, 0.015);
}

TEST(Schedule, ClassRatesAreMergedProcesses) {
  ScheduleOptions options = Random(20'000, 0);
  options.classes.resize(2, options.classes[0]);
  options.classes[0].rate = 3;
  options.classes[1].rate = 1;
  const auto schedule = BuildSchedule(options, {});
  ASSERT_TRUE(schedule.ok()) << schedule.status();
  double first = 0;
  Time before;
  for (const RequestSpec& request : schedule->requests) {
    EXPECT_GE(request.intended, before);
    before = request.intended;
    first += request.class_index == 0;
  }
  EXPECT_NEAR(first / 20'000, 0.75, 0.01);
  EXPECT_NEAR(before.seconds(), 5000, 100);
  options.mode = LoadMode::kClosedLoop;
  EXPECT_THAT(ErrorOf(options), HasSubstr("open loop"));
}

TEST(Schedule, CancelsTheStatedShare) {
  ScheduleOptions options = Random(10'000, 100);
  options.classes[0].cancel_probability = 0.3;
  const auto schedule = BuildSchedule(options, {});
  int cancelled = 0;
  std::vector<int> at(9, 0);
  for (const RequestSpec& request : schedule->requests) {
    cancelled += request.cancel_after_tokens > 0;
    ++at.at(request.cancel_after_tokens);
  }
  EXPECT_NEAR(cancelled, 3000, 150);
  for (int k = 1; k <= 8; ++k) EXPECT_NEAR(at[k], 375, 80);
}

TEST(Schedule, BadOptionsNameTheField) {
  ScheduleOptions options = Random(0, 1);
  EXPECT_THAT(ErrorOf(options), HasSubstr("num-requests"));
  options = Random(ScheduleOptions::kMaxRequests + 1, 1);
  EXPECT_THAT(ErrorOf(options), HasSubstr("num-requests"));
  options = Random(1, 0);
  EXPECT_THAT(ErrorOf(options), HasSubstr("rate"));
  options = Random(1, std::nan(""));
  EXPECT_THAT(ErrorOf(options), HasSubstr("rate"));
  options = Random(10, 1e-9);
  EXPECT_THAT(ErrorOf(options), HasSubstr("rate: too low"));
  options = Random(1, 1);
  options.arrival = {ArrivalKind::kGamma, 1, 0};
  EXPECT_THAT(ErrorOf(options), HasSubstr("burstiness"));
  options = Random(1, 1);
  options.warmup = -1;
  EXPECT_THAT(ErrorOf(options), HasSubstr("warmup"));
  options.warmup = std::numeric_limits<int64_t>::max();
  EXPECT_THAT(ErrorOf(options), HasSubstr("num-requests"));
  options = Random(std::numeric_limits<int64_t>::max(), 1);
  options.warmup = 1;
  EXPECT_THAT(ErrorOf(options), HasSubstr("num-requests"));
  options = Random(1, 1);
  options.mode = LoadMode::kClosedLoop;
  options.concurrency = 0;
  EXPECT_THAT(ErrorOf(options), HasSubstr("concurrency"));
  options = Random(1, 1);
  options.scale_context = 1;
  EXPECT_THAT(ErrorOf(options), HasSubstr("scale-lengths"));
}

TEST(Slo, ParsesAndRejects) {
  const auto slo = ParseSlo("ttft=500,e2e=1e4, tpot = 20");
  ASSERT_TRUE(slo.ok()) << slo.status();
  EXPECT_EQ(*slo->ttft_ms, 500);
  EXPECT_EQ(*slo->tpot_ms, 20);
  EXPECT_EQ(*slo->e2e_ms, 10'000);
  EXPECT_FALSE(ParseSlo("ttft=500")->tpot_ms.has_value());
  for (const char* bad :
       {"", "ttft", "ttft=", "ttft=x", "ttft=0", "ttft=-1", "ttft=inf", "itl=5", "ttft=1,ttft=2"}) {
    EXPECT_EQ(ParseSlo(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(Classes, ReadsEveryField) {
  TempFile file(R"(
- name: chat
  share: 3
  dataset: random
  priority: -2
  tenant: acme
  slo: ttft=200,tpot=40
  cancel_probability: 0.1
- name: batch
  dataset: {name: lengths, path: other.csv}
  slo: {e2e: 60000}
)");
  TrafficClass defaults;
  defaults.dataset.input_len = 77;
  defaults.slo.ttft_ms = 1;
  const auto classes = LoadClasses(file.path(), defaults);
  ASSERT_TRUE(classes.ok()) << classes.status();
  ASSERT_EQ(classes->size(), 2u);
  const TrafficClass& chat = (*classes)[0];
  EXPECT_EQ(chat.name, "chat");
  EXPECT_EQ(chat.share, 3);
  EXPECT_EQ(chat.priority, -2);
  EXPECT_EQ(chat.tenant, "acme");
  EXPECT_EQ(*chat.slo.tpot_ms, 40);
  EXPECT_EQ(chat.cancel_probability, 0.1);
  EXPECT_EQ(chat.dataset.input_len, 77);
  const TrafficClass& batch = (*classes)[1];
  EXPECT_EQ(batch.dataset.kind, DatasetKind::kLengths);
  EXPECT_EQ(batch.dataset.paths, std::vector<std::string>{"other.csv"});
  EXPECT_EQ(*batch.slo.e2e_ms, 60'000);
  EXPECT_FALSE(batch.slo.ttft_ms.has_value());
  EXPECT_EQ(batch.share, 1);
}

TEST(Classes, ErrorsNameLineAndField) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"- share: 1\n", "name: a class needs one"},
      {"- name: a\n  shares: 1\n", ":2: class: unknown 'shares', did you mean 'share'?"},
      {"- name: a\n  share: 0\n", ":2: share: must be above 0"},
      {"- name: a\n  rate: .nan\n", ":2: rate: must be above 0"},
      {"- name: a\n  priority: 1.5\n", "priority"},
      {"- name: a\n  cancel_probability: 2\n", "cancel_probability"},
      {"- name: a\n  slo: ttft=0\n", ":2: slo: ttft"},
      {"- name: a\n  dataset: alpaca\n", ":2: dataset: unknown 'alpaca'"},
      {"- name: a\n  dataset: {name: random, inputs: 4}\n", "dataset: unknown 'inputs'"},
      {"- name: a\n- name: a\n", ":2: name: 'a' is there twice"},
      {"- name: a\n  rate: 1\n- name: b\n", "rate: give it to every class or to none"},
      {"- [1]\n", "a class must be a mapping"},
      {"name: a\n", "must be a list"},
      {"[]\n", "must be a list"},
      {"- name: [\n", ":2: "}};
  for (const auto& [yaml, message] : cases) {
    TempFile file(yaml);
    const auto status = LoadClasses(file.path(), {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << yaml;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << yaml;
    EXPECT_THAT(std::string(status.message()), HasSubstr(file.path()));
  }
  EXPECT_EQ(LoadClasses("/nonexistent.yaml", {}).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace orrery::bench
