#include "server/bench/measurement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "scheduler/base/random.h"
#include "server/bench/statistics.h"

namespace orrery::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

Time At(double ms) { return Time{static_cast<int64_t>(std::llround(ms * 1e6))}; }

RequestRecord Record(double intended_ms, double sent_ms, std::vector<std::pair<double, int32_t>> chunks,
                     Outcome outcome = Outcome::kCompleted) {
  RequestRecord record;
  record.intended = At(intended_ms);
  record.sent = At(sent_ms);
  for (const auto& [at, tokens] : chunks) record.chunks.push_back({At(at), tokens});
  record.end = chunks.empty() ? At(sent_ms + 1) : At(chunks.back().first + 2);
  record.result.outcome = outcome;
  record.result.prompt_tokens = 10;
  record.result.cached_tokens = 3;
  return record;
}

Schedule ScheduleFor(size_t n, SloTargets slo = {}) {
  Schedule schedule;
  schedule.classes.resize(1);
  schedule.classes[0].slo = slo;
  schedule.requests.resize(n);
  return schedule;
}

TEST(Statistics, HandComputed) {
  std::vector<double> sample = {4, 1, 3, 2};
  const auto summary = Summarize(&sample);
  ASSERT_TRUE(summary);
  EXPECT_DOUBLE_EQ(summary->mean, 2.5);
  EXPECT_DOUBLE_EQ(summary->median, 2.5);
  EXPECT_DOUBLE_EQ(summary->std_dev, std::sqrt(1.25));
  // numpy.percentile([1, 2, 3, 4], [50, 90, 95, 99, 99.9])
  const std::vector<double> expected = {2.5, 3.7, 3.85, 3.97, 3.997};
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(summary->percentiles[i], expected[i], 1e-12);
  std::vector<double> one = {7};
  EXPECT_DOUBLE_EQ(Summarize(&one)->percentiles[4], 7);
  EXPECT_DOUBLE_EQ(Summarize(&one)->std_dev, 0);
  std::vector<double> none;
  EXPECT_FALSE(Summarize(&none));
  EXPECT_DOUBLE_EQ(Percentile({1, 5}, 0), 1);
  EXPECT_DOUBLE_EQ(Percentile({1, 5}, 100), 5);
  EXPECT_DOUBLE_EQ(Percentile({15, 20, 35, 40, 50}, 40), 29);
}

// The percentile as its definition reads: the value at rank p (n - 1) / 100 of a piecewise linear curve.
TEST(Statistics, PercentilesOfRandomSamples) {
  RandomStream random(11);
  for (int round = 0; round < 50; ++round) {
    std::vector<double> sample(1 + random.Below(300));
    for (double& x : sample) x = std::exp(8 * random.Uniform());
    std::vector<double> sorted = sample;
    std::sort(sorted.begin(), sorted.end());
    for (const double p : {0.0, 1.0, 37.5, 50.0, 99.0, 99.9, 100.0}) {
      const double rank = p * static_cast<double>(sorted.size() - 1) / 100;
      double expected = 0;
      for (size_t i = 0; i < sorted.size(); ++i) {
        expected += sorted[i] * std::max(0.0, 1 - std::abs(rank - static_cast<double>(i)));
      }
      EXPECT_NEAR(Percentile(sorted, p), expected, 1e-9 * expected);
    }
  }
}

TEST(Measurement, DefinitionsByHand) {
  // Due at 100 ms, sent at 104; tokens 1 at 120, 1 at 130, 3 at 160.
  const RequestRecord record = Record(100, 104, {{120, 1}, {130, 1}, {160, 3}});
  EXPECT_DOUBLE_EQ(*TtftMs(record), 20);
  EXPECT_DOUBLE_EQ(E2eMs(record), 60);
  EXPECT_DOUBLE_EQ(*TpotMs(record), 10);  // (60 - 20) / (5 - 1)
  std::vector<double> itls;
  AppendItlMs(record, &itls);
  EXPECT_THAT(itls, ElementsAre(10, 10, 10, 10));  // 10 once, then 30 / 3 three times

  const Measurement block = Measure(ScheduleFor(1), {record});
  EXPECT_DOUBLE_EQ(block.ttft_ms->mean, 20);
  EXPECT_DOUBLE_EQ(block.ttft_sent_ms->mean, 16);
  EXPECT_DOUBLE_EQ(block.e2el_ms->mean, 60);
  EXPECT_DOUBLE_EQ(block.e2el_sent_ms->mean, 56);
  EXPECT_DOUBLE_EQ(block.chunk_gap_ms->mean, 20);  // 10 and 30
  EXPECT_DOUBLE_EQ(block.chunk_gap_ms->std_dev, 10);
  EXPECT_DOUBLE_EQ(*block.send_lag_p99_ms, 4);
  EXPECT_DOUBLE_EQ(block.duration, 0.162);
  EXPECT_DOUBLE_EQ(*block.output_throughput, 5 / 0.162);
  EXPECT_DOUBLE_EQ(*block.total_token_throughput, 15 / 0.162);
  EXPECT_EQ(block.total_cached_tokens, 3);
}

TEST(Measurement, FirstMessageOfSeveralTokens) {
  const RequestRecord record = Record(0, 0, {{10, 3}, {22, 2}});
  std::vector<double> itls;
  AppendItlMs(record, &itls);
  EXPECT_THAT(itls, ElementsAre(0, 0, 6, 6));
  EXPECT_DOUBLE_EQ(*TpotMs(record), 3);
  double sum = 0;
  for (const double itl : itls) sum += itl;
  EXPECT_DOUBLE_EQ(sum, E2eMs(record) - *TtftMs(record));
}

TEST(Measurement, OneTokenHasNoTpot) {
  const Measurement block =
      Measure(ScheduleFor(2), {Record(0, 0, {{10, 1}}), Record(0, 0, {{10, 1}, {30, 1}})});
  EXPECT_DOUBLE_EQ(block.tpot_ms->mean, 20);  // of the second alone
  EXPECT_FALSE(TpotMs(Record(0, 0, {{10, 1}})));
  const Measurement single = Measure(ScheduleFor(1), {Record(0, 0, {{10, 1}})});
  EXPECT_FALSE(single.tpot_ms);
  EXPECT_FALSE(single.itl_ms);
  EXPECT_TRUE(single.ttft_ms);
}

// Where the server says how many tokens there were, its word counts (text may come without ids).
TEST(Measurement, ServersCountWins) {
  RequestRecord record = Record(0, 0, {{10, 1}, {50, 1}});
  record.result.output_tokens = 5;
  EXPECT_EQ(Measure(ScheduleFor(1), {record}).total_output_tokens, 5);
  EXPECT_DOUBLE_EQ(*TpotMs(record), 10);
}

TEST(Measurement, NothingMeasured) {
  const Measurement block = Measure(ScheduleFor(1), {RequestRecord{}});
  EXPECT_EQ(block.unfinished, 1);
  EXPECT_EQ(block.duration, 0);
  EXPECT_FALSE(block.request_throughput);
  EXPECT_FALSE(block.ttft_ms);
  EXPECT_FALSE(block.send_lag_p99_ms);
  EXPECT_FALSE(block.slo_attainment);
}

TEST(Measurement, GoodputCountsMisses) {
  SloTargets slo;
  slo.ttft_ms = 20;
  slo.tpot_ms = 5;
  const std::vector<RequestRecord> records = {
      Record(0, 0, {{20, 1}, {25, 1}}),    // meets both, exactly
      Record(0, 0, {{21, 1}, {25, 1}}),    // first token late
      Record(0, 0, {{10, 1}, {16, 1}}),    // TPOT too long
      Record(0, 0, {{10, 1}}),             // no TPOT: counts as met
      Record(0, 15, {{22, 1}}),            // late by the client's lag
      Record(0, 0, {}, Outcome::kFailed),  // misses
      Record(0, 0, {}, Outcome::kRejected),
      Record(0, 0, {{5, 1}}, Outcome::kCancelled),  // does not count
  };
  const Measurement block = Measure(ScheduleFor(8, slo), records);
  EXPECT_DOUBLE_EQ(*block.slo_attainment, 2 / 7.0);
  EXPECT_DOUBLE_EQ(*block.request_goodput * block.duration, 2);
  EXPECT_DOUBLE_EQ(*block.token_goodput * block.duration, 3);
  EXPECT_EQ(block.completed, 5);
  EXPECT_FALSE(Measure(ScheduleFor(8), records).slo_attainment);
  EXPECT_FALSE(Measure(ScheduleFor(8), records).request_goodput);
}

TEST(Measurement, MostAtOnce) {
  const Measurement block =
      Measure(ScheduleFor(4), {Record(0, 0, {{8, 1}}),       // ends at 10
                               Record(5, 5, {{18, 1}}),      // ends at 20
                               Record(10, 10, {{28, 1}}),    // starts as the first one ends
                               Record(12, 12, {{13, 1}})});  // ends at 15: three are open from 12 to 15
  EXPECT_EQ(block.max_concurrent_requests, 3);
}

TEST(Measurement, ClassesAreBrokenDown) {
  Schedule schedule = ScheduleFor(3);
  schedule.classes.resize(2);
  schedule.classes[0].name = "fast";
  schedule.classes[0].slo.e2e_ms = 5;
  schedule.classes[1].name = "slow";
  schedule.requests[1].class_index = 1;
  schedule.requests[2].class_index = 1;
  const Measurement block = Measure(
      schedule, {Record(0, 0, {{10, 2}}), Record(0, 0, {{30, 2}}), Record(0, 0, {}, Outcome::kRejected)});
  ASSERT_EQ(block.per_class.size(), 2u);
  EXPECT_EQ(block.per_class[0].first, "fast");
  EXPECT_EQ(block.per_class[0].second.completed, 1);
  EXPECT_EQ(*block.per_class[0].second.slo_attainment, 0);
  EXPECT_DOUBLE_EQ(block.per_class[1].second.ttft_ms->mean, 30);
  EXPECT_EQ(block.per_class[1].second.rejected, 1);
  EXPECT_FALSE(block.per_class[1].second.slo_attainment);
  EXPECT_EQ(block.completed, 2);
  EXPECT_TRUE(block.per_class[0].second.per_class.empty());
  EXPECT_DOUBLE_EQ(block.per_class[0].second.duration, block.duration);
}

TEST(Measurement, ErrorsByReason) {
  std::vector<RequestRecord> records(3, Record(0, 0, {}, Outcome::kRejected));
  for (auto& record : records) record.result.reason = "queue_full";
  records[2].result.outcome = Outcome::kFailed;
  records[2].result.reason = "unavailable";
  EXPECT_THAT(Measure(ScheduleFor(3), records).errors,
              ElementsAre(Pair("queue_full", 2), Pair("unavailable", 1)));
}

}  // namespace
}  // namespace orrery::bench
