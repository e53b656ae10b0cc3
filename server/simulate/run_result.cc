#include "server/simulate/run_result.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/bench/result_json.h"
#include "server/bench/text_report.h"

namespace orrery::simulate {
namespace {

using nlohmann::ordered_json;

ordered_json OrNull(const std::optional<double>& value) { return value ? ordered_json(*value) : nullptr; }

std::optional<double> Mean(const std::optional<bench::Summary>& summary) {
  return summary ? std::optional<double>(summary->mean) : std::nullopt;
}
std::optional<double> P99(const std::optional<bench::Summary>& summary) {
  return summary ? std::optional<double>(summary->percentiles[3]) : std::nullopt;
}

// What is compared, in the order of the table.
std::vector<std::pair<const char*, std::optional<double>>> Metrics(const RunResult& run) {
  const bench::Measurement& block = run.block;
  return {{"mean_ttft_ms", Mean(block.ttft_ms)},
          {"p99_ttft_ms", P99(block.ttft_ms)},
          {"max_ttft_ms", block.ttft_ms ? std::optional<double>(run.max_ttft_ms) : std::nullopt},
          {"mean_tpot_ms", Mean(block.tpot_ms)},
          {"p99_tpot_ms", P99(block.tpot_ms)},
          {"mean_e2el_ms", Mean(block.e2el_ms)},
          {"p99_e2el_ms", P99(block.e2el_ms)},
          {"request_throughput", block.request_throughput},
          {"output_throughput", block.output_throughput},
          {"request_goodput", block.request_goodput},
          {"slo_attainment", block.slo_attainment},
          {"completed", static_cast<double>(block.completed)},
          {"rejected", static_cast<double>(block.rejected)},
          {"preemptions", static_cast<double>(run.report.counters.preemptions)},
          {"jain_fairness", run.jain_fairness},
          {"waiting_growth", run.waiting_growth},
          {"reward_per_worker_s", run.reward_per_worker_s},
          {"imbalance_mean", run.report.imbalance_mean},
          {"idle_fraction_mean", run.report.idle_fraction_mean},
          {"energy_j", run.report.energy_j}};
}

// The 97.5 % quantile of Student's t with `df` degrees of freedom: exact where it is tabulated, else by
// Cornish and Fisher's expansion, which is right to 1e-4 there.
double StudentQuantile(size_t df) {
  static constexpr double kTable[] = {12.7062, 4.3027, 3.1824, 2.7764, 2.5706,
                                      2.4469,  2.3646, 2.3060, 2.2622};
  if (df <= std::size(kTable)) return kTable[df - 1];
  const double z = 1.959963985, n = static_cast<double>(df);
  const double z3 = z * z * z, z5 = z3 * z * z;
  return z + (z3 + z) / (4 * n) + (5 * z5 + 16 * z3 + 3 * z) / (96 * n * n);
}

ordered_json DecisionJson(const DecisionSummary& decisions) {
  if (decisions.decisions == 0) return nullptr;
  const auto count = static_cast<double>(decisions.decisions);
  return {{"policy", decisions.policy},
          {"objective", decisions.objective},
          {"mean", decisions.value_sum / count},
          {"decisions", decisions.decisions},
          {"work_mean", static_cast<double>(decisions.work) / count}};
}

ordered_json BoundJson(const DecisionSummary& decisions) {
  if (decisions.bounded == 0) return nullptr;
  return {{"policy", decisions.policy},
          {"mean", decisions.bound_sum / static_cast<double>(decisions.bounded)},
          {"decisions", decisions.bounded}};
}

ordered_json RouterJson(const RouterCounters& router) {
  ordered_json replayed;
  for (size_t i = 0; i < kNumReplayReasons; ++i) {
    replayed[std::string(ReplayReasonName(static_cast<ReplayReason>(i)))] = router.replayed_for[i];
  }
  return {{"ejections", router.ejections}, {"given_up", router.given_up}, {"replayed", std::move(replayed)}};
}

ordered_json ErrorJson(const PredictionError& error) {
  if (error.count() == 0) return nullptr;
  return {{"count", error.count()}, {"mean_absolute", error.mean_absolute()}, {"p90", error.p90()}};
}

}  // namespace

ordered_json RunJson(const RunResult& run) {
  ordered_json out = bench::BlockJson(run.block);
  const sim::SimReport& report = run.report;
  out["rate"] = OrNull(run.rate);
  out["requests"] = report.requests;
  out["steps"] = report.steps;
  out["sequence_steps"] = report.sequence_steps;
  out["simulated_s"] = report.end.seconds();
  out["wall_s"] = run.wall_s;
  out["events"] = report.events;
  out["imbalance_mean"] = report.imbalance_mean;
  out["idle_fraction_mean"] = report.idle_fraction_mean;
  out["energy_j"] = report.energy_j;
  out["preemptions"] = report.counters.preemptions;
  out["recomputed_tokens"] = report.counters.recomputed_tokens;
  out["prefix_hit_tokens"] = report.counters.prefix_hit_tokens;
  out["replayed"] = report.router.replayed;
  out["router"] = RouterJson(report.router);
  out["repairs"] = report.counters.repairs;
  out["fallbacks"] = report.counters.fallbacks;
  out["max_ttft_ms"] = run.block.ttft_ms ? ordered_json(run.max_ttft_ms) : nullptr;
  out["jain_fairness"] = OrNull(run.jain_fairness);
  out["waiting_growth"] = OrNull(run.waiting_growth);
  if (run.reward_per_worker_s) out["reward_per_worker_s"] = *run.reward_per_worker_s;
  out["objective"] = DecisionJson(run.decisions);
  out["bound"] = BoundJson(run.decisions);
  const auto& times = run.decision_us;
  if (const auto& errors = report.prediction_errors) {
    out["prediction_error_ms"] = {{"ttft", ErrorJson(errors->ttft)}, {"step", ErrorJson(errors->step)}};
  }
  out["policy_us"] = {{"p50", OrNull(times ? std::optional<double>(times->median) : std::nullopt)},
                      {"p99", OrNull(P99(times))},
                      {"max", run.max_decision_us}};
  if (!report.story.empty()) {
    ordered_json story = ordered_json::array();
    for (const sim::ExplainEntry& entry : report.story) {
      story.push_back({{"at_s", entry.at.seconds()}, {"what", entry.what}});
    }
    out["explain"] = std::move(story);
  }
  return out;
}

std::vector<MetricSummary> SummarizeRuns(absl::Span<const RunResult> runs) {
  std::vector<MetricSummary> out;
  for (size_t begin = 0, end = 0; begin < runs.size(); begin = end) {
    while (end < runs.size() && runs[end].policy == runs[begin].policy) ++end;
    const size_t num_metrics = Metrics(runs[begin]).size();
    for (size_t m = 0; m < num_metrics; ++m) {
      std::vector<double> values;
      for (size_t i = begin; i < end; ++i) {
        if (const auto value = Metrics(runs[i])[m].second) values.push_back(*value);
      }
      if (values.empty()) continue;
      const auto n = static_cast<double>(values.size());
      MetricSummary summary{runs[begin].policy, Metrics(runs[begin])[m].first, 0, {}, {}};
      for (const double value : values) summary.mean += value / n;
      if (values.size() > 1) {
        double squares = 0;
        for (const double value : values) squares += (value - summary.mean) * (value - summary.mean);
        const double half = StudentQuantile(values.size() - 1) * std::sqrt(squares / (n - 1) / n);
        summary.low = summary.mean - half;
        summary.high = summary.mean + half;
      }
      out.push_back(std::move(summary));
    }
  }
  return out;
}

ordered_json ComparisonJson(absl::Span<const RunResult> runs) {
  ordered_json out = {{"runs", ordered_json::array()}, {"summary", ordered_json::array()}};
  for (const RunResult& run : runs) {
    ordered_json one = {{"policy", run.policy}, {"seed", run.seed}};
    one.update(RunJson(run));
    out["runs"].push_back(std::move(one));
  }
  for (const MetricSummary& summary : SummarizeRuns(runs)) {
    out["summary"].push_back({{"policy", summary.policy},
                              {"metric", summary.metric},
                              {"mean", summary.mean},
                              {"ci95_low", OrNull(summary.low)},
                              {"ci95_high", OrNull(summary.high)}});
  }
  return out;
}

std::string RunText(const RunResult& run) {
  std::string out = bench::TextReport(run.block);
  const std::string heading = "Load test\n";
  if (out.rfind(heading, 0) == 0) out.replace(0, heading.size(), "Simulation\n");
  const auto row = [&](absl::string_view name, const std::string& value) {
    absl::StrAppendFormat(&out, "  %-28s %14s\n", name, value);
  };
  out.push_back('\n');
  const sim::SimReport& report = run.report;
  if (run.rate) row("Rate (requests/s)", absl::StrFormat("%.4g", *run.rate));
  if (run.waiting_growth) row("Waiting grows by (/arrival)", absl::StrFormat("%.4f", *run.waiting_growth));
  if (run.reward_per_worker_s) row("Reward (/worker/s)", absl::StrFormat("%.4f", *run.reward_per_worker_s));
  row("Steps", absl::StrCat(report.steps));
  row("Preemptions", absl::StrCat(report.counters.preemptions));
  row("Imbalance (KV tokens)", absl::StrFormat("%.1f", report.imbalance_mean));
  row("Idle behind the fullest", absl::StrFormat("%.2f %%", report.idle_fraction_mean * 100));
  row("Energy (kJ)", absl::StrFormat("%.2f", report.energy_j * 1e-3));
  if (const auto& times = run.decision_us) {
    row("Decision p50 / p99 (us)", absl::StrFormat("%.1f / %.1f", times->median, times->percentiles[3]));
  }
  row("Wall time (s)", absl::StrFormat("%.2f", run.wall_s));
  row("Sequence-steps/s (million)",
      absl::StrFormat("%.2f", run.wall_s > 0 ? report.sequence_steps / run.wall_s * 1e-6 : 0.0));
  for (const sim::ExplainEntry& entry : report.story) {
    absl::StrAppendFormat(&out, "  %12.6f s  %s\n", entry.at.seconds(), entry.what);
  }
  return out;
}

std::string ComparisonText(absl::Span<const RunResult> runs) {
  // One row per policy; a mean with half its interval.
  static constexpr std::pair<const char*, const char*> kColumns[] = {
      {"mean_ttft_ms", "TTFT ms"},      {"p99_ttft_ms", "TTFT p99"}, {"mean_tpot_ms", "TPOT ms"},
      {"mean_e2el_ms", "E2E ms"},       {"p99_e2el_ms", "E2E p99"},  {"request_goodput", "goodput/s"},
      {"request_throughput", "done/s"}, {"preemptions", "preempt."}, {"jain_fairness", "Jain"}};
  const std::vector<MetricSummary> all = SummarizeRuns(runs);
  std::string out = absl::StrFormat("%-24s", "policy");
  for (const auto& [unused, title] : kColumns) absl::StrAppendFormat(&out, " %18s", title);
  out.push_back('\n');
  std::string last;
  for (const RunResult& run : runs) {
    if (run.policy == last) continue;
    last = run.policy;
    absl::StrAppendFormat(&out, "%-24.24s", run.policy);
    for (const auto& [metric, unused] : kColumns) {
      std::string cell = "-";
      for (const MetricSummary& one : all) {
        if (one.policy != run.policy || one.metric != metric) continue;
        cell = absl::StrFormat("%.4g", one.mean);
        if (one.low) absl::StrAppendFormat(&cell, " +-%.2g", *one.high - one.mean);
      }
      absl::StrAppendFormat(&out, " %18s", cell);
    }
    out.push_back('\n');
  }
  return out;
}

}  // namespace orrery::simulate
