#include "server/bench/report_plots.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "absl/strings/str_format.h"

namespace orrery::bench {
namespace {

constexpr size_t kLinePoints = 400;
constexpr size_t kScatterPoints = 1500;
// A distribution whose 99th percentile is this many times its 1st is drawn over a logarithmic axis.
constexpr double kLogRatio = 20;
// A distribution with values beyond so many times its p99.9 is cut there.
constexpr double kShownBeyond = 1.5;
constexpr size_t kTimelineBuckets = 120;

using Points = std::vector<std::pair<double, double>>;
using Values = std::function<void(const RequestRecord&, std::vector<double>*)>;

bool Measured(const RunResult& result, size_t i) {
  return i >= static_cast<size_t>(result.schedule.warmup) &&
         result.records[i].result.outcome == Outcome::kCompleted;
}

// The values of the measured requests of one class (-1: of all), sorted.
std::vector<double> Collect(const RunResult& result, int class_index, const Values& values) {
  std::vector<double> out;
  for (size_t i = 0; i < result.records.size(); ++i) {
    if (!Measured(result, i)) continue;
    if (class_index >= 0 && result.schedule.requests[i].class_index != class_index) continue;
    values(result.records[i], &out);
  }
  std::sort(out.begin(), out.end());
  return out;
}

Points Distribution(const std::vector<double>& sorted) {
  Points points;
  const size_t n = sorted.size();
  const size_t steps = std::min(n, kLinePoints);
  for (size_t i = 0; i < steps; ++i) {
    const size_t at = steps == 1 ? 0 : i * (n - 1) / (steps - 1);
    points.emplace_back(sorted[at], static_cast<double>(at + 1) / static_cast<double>(n));
  }
  return points;
}

int NumClasses(const RunResult& result) {
  const auto& classes = result.schedule.classes;
  return classes.size() == 1 && classes[0].name.empty() ? 0 : static_cast<int>(classes.size());
}

// `sent` draws the same from the real send times, as the dashed twin.
Plot LatencyPlot(const RunResult& result, const char* title, const Values& values, const Values& sent,
                 const std::optional<double> SloTargets::*target) {
  Plot plot{title, "milliseconds", "share of requests", false, 0, 1.0, {}, {}};
  const std::vector<double> all = Collect(result, -1, values);
  if (!all.empty()) {
    const double p1 = Percentile(all, 1);
    plot.log_x = p1 > 0 && Percentile(all, 99) > kLogRatio * p1;
    // One stray value must not press the distribution against the axis.
    const double shown = kShownBeyond * Percentile(all, 99.9);
    if (!plot.log_x && shown > 0 && all.back() > shown) {
      plot.x_max = shown;
      plot.x_label = absl::StrFormat("milliseconds (the largest value, %.4g, lies outside)", all.back());
    }
  }
  const int classes = NumClasses(result);
  for (int c = 0; c < classes; ++c) {
    plot.series.push_back({result.schedule.classes[c].name, SeriesStyle::kLine, c % kSeriesColors, false,
                           Distribution(Collect(result, c, values))});
  }
  if (classes == 0) {
    plot.series.push_back({sent ? "intended send" : "", SeriesStyle::kLine, 0, false, Distribution(all)});
    if (sent) {
      plot.series.push_back(
          {"real send", SeriesStyle::kLine, 1, true, Distribution(Collect(result, -1, sent))});
    }
    if (target != nullptr && result.schedule.classes[0].slo.*target) {
      plot.x_marks.emplace_back(*(result.schedule.classes[0].slo.*target), "target");
    }
  }
  return plot;
}

double RunSeconds(const RunResult& result) {
  double end = 0;
  for (const RequestRecord& record : result.records) {
    if (record.ended()) end = std::max(end, record.end.seconds());
  }
  return end;
}

Plot ConcurrencyPlot(const RunResult& result) {
  std::vector<std::pair<double, int>> events;
  for (const RequestRecord& record : result.records) {
    if (!record.was_sent()) continue;
    events.emplace_back(record.sent.seconds(), 1);
    if (record.ended()) events.emplace_back(record.end.seconds(), -1);
  }
  std::sort(events.begin(), events.end());
  // The highest value in each pixel or so: thinning must not hide a peak.
  const double bucket = std::max(1e-9, RunSeconds(result) / static_cast<double>(kLinePoints));
  Points points;
  int open = 0;
  for (const auto& [at, change] : events) {
    open += change;
    const double x = std::floor(at / bucket) * bucket;
    if (!points.empty() && points.back().first == x) {
      points.back().second = std::max(points.back().second, static_cast<double>(open));
    } else {
      points.emplace_back(x, open);
    }
  }
  return {"Requests in flight",
          "seconds",
          "requests",
          false,
          0,
          0,
          {{"", SeriesStyle::kStep, 0, false, points}},
          {}};
}

// Counts over the run in buckets of equal width, as rates per second.
class Rates {
 public:
  explicit Rates(double run_seconds)
      : width_(std::max(1e-3, run_seconds / kTimelineBuckets)), counts_(kTimelineBuckets + 1, 0.0) {}
  void Add(Time at, double count) {
    const double bucket = at.seconds() / width_;
    counts_[std::min(static_cast<size_t>(std::max(0.0, bucket)), counts_.size() - 1)] += count;
  }
  Points points() const {
    Points out;
    for (size_t i = 0; i < counts_.size(); ++i) {
      out.emplace_back(static_cast<double>(i) * width_, counts_[i] / width_);
    }
    return out;
  }

 private:
  double width_;
  std::vector<double> counts_;
};

std::vector<Plot> RatePlots(const RunResult& result) {
  const double seconds = RunSeconds(result);
  if (seconds <= 0) return {};
  Rates output(seconds), prompt(seconds), sent(seconds), completed(seconds);
  for (const RequestRecord& record : result.records) {
    for (const Chunk& chunk : record.chunks) output.Add(chunk.at, chunk.tokens);
    if (!record.chunks.empty()) {
      prompt.Add(record.chunks.front().at,
                 record.result.prompt_tokens.value_or(0) - record.result.cached_tokens);
    }
    if (record.was_sent()) sent.Add(record.sent, 1);
    if (record.result.outcome == Outcome::kCompleted) completed.Add(record.end, 1);
  }
  const auto plot = [](const char* title, const char* y_label, std::vector<Series> series) {
    return Plot{title, "seconds", y_label, false, 0, 0, std::move(series), {}};
  };
  return {plot("Requests per second", "requests/s",
               {{"sent", SeriesStyle::kStep, 1, true, sent.points()},
                {"completed", SeriesStyle::kStep, 0, false, completed.points()}}),
          plot("Output tokens per second", "tokens/s", {{"", SeriesStyle::kStep, 0, false, output.points()}}),
          plot("Prompt tokens per second", "computed tokens/s, at first token",
               {{"", SeriesStyle::kStep, 0, false, prompt.points()}})};
}

// One series of points per class, then one of those that failed or were refused.
Plot Scatter(const RunResult& result, Plot plot,
             const std::function<bool(size_t, std::pair<double, double>*)>& point) {
  const int classes = std::max(1, NumClasses(result));
  std::vector<Points> by_class(classes);
  for (size_t i = 0; i < result.records.size(); ++i) {
    std::pair<double, double> xy;
    if (Measured(result, i) && point(i, &xy)) by_class[result.schedule.requests[i].class_index].push_back(xy);
  }
  for (int c = 0; c < classes; ++c) {
    plot.series.push_back({result.schedule.classes[c].name, SeriesStyle::kPoints, c % kSeriesColors, false,
                           Thin(by_class[c], kScatterPoints / classes)});
  }
  return plot;
}

}  // namespace

std::vector<Plot> LatencyPlots(const RunResult& result) {
  const Values ttft = [](const RequestRecord& r, std::vector<double>* out) {
    if (const auto value = TtftMs(r)) out->push_back(*value);
  };
  const Values ttft_sent = [](const RequestRecord& r, std::vector<double>* out) {
    if (!r.chunks.empty()) out->push_back((r.chunks.front().at - r.sent).milliseconds());
  };
  const Values tpot = [](const RequestRecord& r, std::vector<double>* out) {
    if (const auto value = TpotMs(r)) out->push_back(*value);
  };
  const Values e2e = [](const RequestRecord& r, std::vector<double>* out) { out->push_back(E2eMs(r)); };
  const Values e2e_sent = [](const RequestRecord& r, std::vector<double>* out) {
    out->push_back((r.last() - r.sent).milliseconds());
  };
  Plot itl = LatencyPlot(result, "Inter-token latency", AppendItlMs, nullptr, nullptr);
  itl.y_label = "share of tokens";
  return {LatencyPlot(result, "Time to first token", ttft, ttft_sent, &SloTargets::ttft_ms),
          LatencyPlot(result, "Time per output token", tpot, nullptr, &SloTargets::tpot_ms), std::move(itl),
          LatencyPlot(result, "End-to-end latency", e2e, e2e_sent, &SloTargets::e2e_ms)};
}

std::vector<Plot> TimelinePlots(const RunResult& result) {
  std::vector<Plot> plots = {ConcurrencyPlot(result)};
  for (Plot& plot : RatePlots(result)) plots.push_back(std::move(plot));
  return plots;
}

std::vector<Plot> RequestPlots(const RunResult& result) {
  const auto& records = result.records;
  Plot ttft = Scatter(
      result,
      {"Time to first token over the run", "intended send (seconds)", "TTFT (ms)", false, 0, 0, {}, {}},
      [&](size_t i, std::pair<double, double>* xy) {
        *xy = {records[i].intended.seconds(), TtftMs(records[i]).value_or(0)};
        return !records[i].chunks.empty();
      });
  Points bad;
  for (size_t i = result.schedule.warmup; i < records.size(); ++i) {
    const Outcome outcome = records[i].result.outcome;
    if (outcome == Outcome::kFailed || outcome == Outcome::kRejected) {
      bad.emplace_back(records[i].intended.seconds(), 0);
    }
  }
  if (!bad.empty()) {
    ttft.series.push_back({"failed or rejected", SeriesStyle::kPoints, 5, false, Thin(bad, kScatterPoints)});
  }
  Plot e2e = Scatter(result, {"Latency and length", "output tokens", "E2E (ms)", false, 0, 0, {}, {}},
                     [&](size_t i, std::pair<double, double>* xy) {
                       *xy = {records[i].output_tokens(), E2eMs(records[i])};
                       return true;
                     });
  return {std::move(ttft), std::move(e2e)};
}

}  // namespace orrery::bench
