#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "scheduler/base/random.h"
#include "server/bench/html_report.h"
#include "server/bench/result_json.h"
#include "server/bench/svg_plot.h"
#include "server/bench/text_report.h"
#include "server/traces/trace_reader.h"
#include "tests/server/traces/temp_file.h"

namespace orrery::bench {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A run with every kind of outcome: 40 requests, one in ten failed, one in ten refused, some warm-up.
struct TestRun {
  Schedule schedule;
  std::vector<RequestRecord> records;
  Measurement block;
  Environment environment;
  RunResult result() const { return {schedule, records, block, environment}; }
};

TestRun MakeRun(bool classes) {
  TestRun run;
  run.schedule.warmup = 4;
  run.schedule.classes.resize(2);
  if (classes) run.schedule.classes[0].name = "chat <script>", run.schedule.classes[1].name = "batch";
  run.schedule.classes[0].slo.ttft_ms = 100;
  RandomStream random(3);
  for (int i = 0; i < 40; ++i) {
    RequestSpec spec;
    spec.shape.prompt_tokens = 10 + i;
    spec.shape.output_tokens = 1 + i % 5;
    spec.class_index = i % 2;
    spec.intended = Time{i * 10'000'000};
    RequestRecord record;
    record.intended = spec.intended;
    record.sent = spec.intended + Duration::Microseconds(50);
    Time at = record.sent;
    record.result.outcome = i % 10 == 7   ? Outcome::kFailed
                            : i % 10 == 8 ? Outcome::kRejected
                                          : Outcome::kCompleted;
    if (record.result.outcome == Outcome::kCompleted) {
      record.result.prompt_tokens = spec.shape.prompt_tokens;
      record.result.finish_reason = "length";
      for (int k = 0; k < spec.shape.output_tokens; ++k) {
        at = at + Duration::Microseconds(5000 + static_cast<int64_t>(random.Below(100'000)));
        record.chunks.push_back({at, 1});
      }
    } else {
      record.result.reason = "queue_full";
      record.result.message = "no \"room\"\xFF";
    }
    record.end = at + Duration::Microseconds(100);
    run.schedule.requests.push_back(spec);
    run.records.push_back(record);
  }
  run.records.back() = RequestRecord{};  // never sent
  run.block = Measure(run.schedule, run.records);
  run.environment = ThisMachine();
  run.environment.options = {{"rate", "5"}};
  run.environment.server = {{"model", "m"}};
  return run;
}

// The keys that docs and dashboards rely on, spelled out: this list must not follow the code.
std::set<std::string> DocumentedKeys() {
  std::set<std::string> keys = {"duration",
                                "completed",
                                "failed",
                                "rejected",
                                "cancelled",
                                "unfinished",
                                "total_input_tokens",
                                "total_output_tokens",
                                "total_cached_tokens",
                                "request_throughput",
                                "output_throughput",
                                "total_token_throughput",
                                "request_goodput",
                                "token_goodput",
                                "slo_attainment",
                                "max_concurrent_requests",
                                "max_output_tokens_per_s",
                                "send_lag_p99_ms",
                                "errors",
                                "per_class"};
  for (const char* metric : {"ttft", "tpot", "itl", "e2el", "chunk_gap", "ttft_sent", "e2el_sent"}) {
    for (const char* statistic : {"mean", "median", "std", "p50", "p90", "p95", "p99", "p99.9"}) {
      keys.insert(std::string(statistic) + "_" + metric + "_ms");
    }
  }
  return keys;
}

std::set<std::string> KeysOf(const nlohmann::ordered_json& json) {
  std::set<std::string> keys;
  for (const auto& [key, unused] : json.items()) keys.insert(key);
  return keys;
}

TEST(BlockJson, HasExactlyTheDocumentedKeys) {
  const TestRun run = MakeRun(true);
  const auto json = BlockJson(run.block);
  EXPECT_EQ(KeysOf(json), DocumentedKeys());
  EXPECT_EQ(KeysOf(json["per_class"]["batch"]), DocumentedKeys());
  EXPECT_EQ(json["completed"], run.block.completed);
  EXPECT_EQ(json["p99.9_ttft_ms"], run.block.ttft_ms->percentiles[4]);
  EXPECT_EQ(json["median_e2el_ms"], run.block.e2el_ms->median);
  EXPECT_EQ(json["errors"]["queue_full"], 8);
}

TEST(BlockJson, UndefinedIsNull) {
  const auto json = BlockJson(Measurement{});
  EXPECT_EQ(KeysOf(json), DocumentedKeys());
  for (const char* key :
       {"request_throughput", "slo_attainment", "mean_ttft_ms", "p99_tpot_ms", "send_lag_p99_ms"}) {
    EXPECT_TRUE(json[key].is_null()) << key;
  }
  EXPECT_EQ(json["duration"], 0);
  EXPECT_TRUE(json["per_class"].is_object());
}

TEST(SaveResult, IsValidAndComplete) {
  for (const bool classes : {false, true}) {
    const TestRun run = MakeRun(classes);
    TempFile file;
    ASSERT_TRUE(SaveResult(file.path(), run.result()).ok());
    const auto json = nlohmann::json::parse(file.Read());
    for (const std::string& key : DocumentedKeys()) EXPECT_TRUE(json.contains(key)) << key;
    EXPECT_EQ(json["environment"]["options"]["rate"], "5");
    EXPECT_EQ(json["schedule"]["arrival_s"].size(), 40u);
    for (const char* rows :
         {"outcomes", "input_lens", "output_lens", "ttfts", "itls", "start_times", "e2els", "intended_times",
          "end_times", "finish_reasons", "error_messages", "chunk_lens"}) {
      ASSERT_EQ(json[rows].size(), 40u) << rows;
    }
    // The rows recompute the block.
    double ttft = 0;
    double itl = 0;
    int itl_count = 0;
    int64_t output = 0;
    for (size_t i = 4; i < 40; ++i) {
      if (json["outcomes"][i] != "completed") continue;
      ttft += json["ttfts"][i].get<double>() * 1e3 / static_cast<double>(run.block.completed);
      output += json["output_lens"][i].get<int64_t>();
      for (const auto& gap : json["itls"][i]) itl += gap.get<double>() * 1e3, ++itl_count;
    }
    EXPECT_NEAR(ttft, run.block.ttft_ms->mean, 1e-6);
    EXPECT_NEAR(itl / itl_count, run.block.itl_ms->mean, 1e-6);
    EXPECT_EQ(output, run.block.total_output_tokens);
    EXPECT_TRUE(json["ttfts"][39].is_null());
    EXPECT_TRUE(json["start_times"][39].is_null());
  }
  EXPECT_FALSE(SaveResult("/nonexistent/folder/x.json", MakeRun(false).result()).ok());
}

TEST(SaveResult, IsATrace) {
  const TestRun run = MakeRun(false);
  TempFile file;
  ASSERT_TRUE(SaveResult(file.path(), run.result()).ok());
  auto trace = OpenBenchTrace(file.path());
  ASSERT_TRUE(trace.ok()) << trace.status();
  TraceRow row;
  size_t n = 0;
  for (;; ++n) {
    auto more = (*trace)->Next(&row);
    ASSERT_TRUE(more.ok()) << more.status();
    if (!*more) break;
    EXPECT_DOUBLE_EQ(*row.arrival_s, run.schedule.requests[n].intended.seconds());
    EXPECT_EQ(row.prompt_tokens, run.schedule.requests[n].shape.prompt_tokens);
    EXPECT_EQ(row.output_tokens, run.schedule.requests[n].shape.output_tokens);
  }
  EXPECT_EQ(n, 40u);
}

TEST(HtmlReport, IsSelfContainedAndEscaped) {
  const std::string html = HtmlReport(MakeRun(true).result());
  EXPECT_THAT(html, HasSubstr("<svg"));
  EXPECT_THAT(html, HasSubstr("chat &lt;script&gt;"));
  for (const char* outside : {"<script", "http://", "https://", "src=", "@import", "url(", "nan", "inf\""}) {
    EXPECT_THAT(html, Not(HasSubstr(outside))) << outside;
  }
  // Every tag that opens also closes.
  for (const char* tag : {"svg", "table", "div", "tr", "g", "html", "body", "style", "h2", "text"}) {
    const std::string open = std::string("<") + tag;
    const std::string close = std::string("</") + tag + ">";
    int balance = 0;
    for (size_t at = html.find(open); at != std::string::npos; at = html.find(open, at + 1)) {
      const char next = html[at + open.size()];
      balance += next == ' ' || next == '>';
    }
    for (size_t at = html.find(close); at != std::string::npos; at = html.find(close, at + 1)) --balance;
    EXPECT_EQ(balance, 0) << tag;
  }
}

TEST(HtmlReport, NothingMeasuredIsStillAPage) {
  TestRun run = MakeRun(false);
  for (RequestRecord& record : run.records) record = RequestRecord{};
  run.block = Measure(run.schedule, run.records);
  const std::string html = HtmlReport(run.result());
  EXPECT_THAT(html, HasSubstr("no data"));
  EXPECT_THAT(html, Not(HasSubstr("nan")));
}

TEST(SvgPlot, DegenerateDataStaysFinite) {
  for (const bool log_x : {false, true}) {
    for (const std::vector<std::pair<double, double>>& points :
         std::vector<std::vector<std::pair<double, double>>>{
             {}, {{0, 0}}, {{5, 1}, {5, 1}}, {{0, 1}, {1e9, 1e9}}}) {
      const std::string svg =
          RenderSvg({"t", "x", "y", log_x, 0, 0, {{"s", SeriesStyle::kLine, 0, false, points}}, {}});
      EXPECT_THAT(svg, Not(HasSubstr("nan")));
      EXPECT_THAT(svg, Not(HasSubstr("inf")));
      EXPECT_LT(svg.size(), 10'000u);
    }
  }
}

TEST(SvgPlot, ThinKeepsTheEnds) {
  std::vector<std::pair<double, double>> points;
  for (int i = 0; i < 1000; ++i) points.emplace_back(i, i);
  const auto thin = Thin(points, 10);
  ASSERT_EQ(thin.size(), 10u);
  EXPECT_EQ(thin.front().first, 0);
  EXPECT_EQ(thin.back().first, 999);
  EXPECT_EQ(Thin(points, 5000).size(), 1000u);
}

TEST(TextReport, ShowsCountsAndLatencies) {
  const TestRun run = MakeRun(true);
  const std::string text = TextReport(run.block);
  for (const char* part : {"Completed", "queue_full", "TTFT", "p99.9", "batch", "Service level met"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  EXPECT_THAT(TextReport(Measurement{}), HasSubstr("-\n"));
  DriverProgress progress;
  progress.sent = 5;
  EXPECT_THAT(ProgressLine(progress, 10), HasSubstr("sent 5 of 10"));
  EXPECT_EQ(ProgressLine(progress, 10).find('\n'), std::string::npos);
}

}  // namespace
}  // namespace orrery::bench
