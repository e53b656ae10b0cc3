#include "server/simulate/html_page.h"

#include <fstream>
#include <functional>

#include "absl/strings/str_cat.h"
#include "server/bench/html_report.h"
#include "server/bench/svg_plot.h"

namespace orrery::simulate {
namespace {

using bench::Plot;
using bench::Series;
using bench::SeriesStyle;

constexpr size_t kCurvePoints = 400;

Plot OverTime(const char* title, const char* y_label, absl::Span<const RunResult> runs,
              const std::function<const TimeSeries&(const Recorder&)>& series) {
  Plot plot{title, "seconds", y_label, false, 0, 0, {}, {}};
  for (const RunResult& run : runs) {
    if (run.recorder == nullptr) continue;
    const int color = static_cast<int>(plot.series.size()) % bench::kSeriesColors;
    plot.series.push_back({run.policy, SeriesStyle::kStep, color, false, series(*run.recorder).Points()});
  }
  return plot;
}

Plot Distribution(const char* title, absl::Span<const RunResult> runs,
                  const LatencySketch* Recorder::Latencies::*which) {
  Plot plot{title, "milliseconds", "share of requests", true, 0, 1.0, {}, {}};
  int color = 0;
  for (const RunResult& run : runs) {
    if (run.recorder == nullptr) continue;
    const auto classes = run.recorder->latencies();
    for (const Recorder::Latencies& one : classes) {
      const std::string label = classes.size() == 1 ? run.policy : absl::StrCat(run.policy, " ", one.name);
      plot.series.push_back({label, SeriesStyle::kLine, color++ % bench::kSeriesColors, false,
                             (one.*which)->Distribution(kCurvePoints)});
    }
  }
  return plot;
}

Plot Curve(absl::Span<const RunResult> curve) {
  const bool slo = !curve.empty() && curve[0].block.request_goodput.has_value();
  Plot plot{slo ? "Goodput against rate" : "Throughput against rate",
            "offered requests/s",
            slo ? "requests/s that met their targets" : "requests/s completed",
            false,
            0,
            0,
            {},
            {}};
  for (const RunResult& run : curve) {
    if (plot.series.empty() || plot.series.back().label != run.policy) {
      const int color = static_cast<int>(plot.series.size()) % bench::kSeriesColors;
      plot.series.push_back({run.policy, SeriesStyle::kLine, color, false, {}});
    }
    const auto& value = slo ? run.block.request_goodput : run.block.request_throughput;
    plot.series.back().points.emplace_back(run.rate.value_or(0), value.value_or(0));
  }
  return plot;
}

void Add(const char* heading, const std::vector<Plot>& plots, std::string* out) {
  absl::StrAppend(out, "<h2>", heading, "</h2>\n<div class=\"plots\">\n");
  for (const Plot& plot : plots) absl::StrAppend(out, "<div class=\"plot\">", RenderSvg(plot), "</div>\n");
  absl::StrAppend(out, "</div>\n");
}

}  // namespace

std::string HtmlPage(absl::Span<const RunResult> runs, absl::Span<const RunResult> curve,
                     const std::string& command) {
  std::string out = bench::HtmlHead("Simulation");
  absl::StrAppend(&out, "<h1>Simulation</h1>\n<p class=\"sub\">", bench::EscapeHtml(command), "</p>\n");
  Add("Latency distributions",
      {Distribution("Time to first token", runs, &Recorder::Latencies::ttft),
       Distribution("Time per output token", runs, &Recorder::Latencies::tpot),
       Distribution("Inter-token latency", runs, &Recorder::Latencies::itl),
       Distribution("End-to-end latency", runs, &Recorder::Latencies::e2e)},
      &out);
  Add("Over time",
      {OverTime("Requests waiting", "requests", runs,
                [](const Recorder& r) -> const TimeSeries& { return r.waiting(); }),
       OverTime("Requests running", "requests", runs,
                [](const Recorder& r) -> const TimeSeries& { return r.running(); }),
       OverTime("KV cache in use", "tokens", runs,
                [](const Recorder& r) -> const TimeSeries& { return r.kv_tokens(); })},
      &out);
  if (!curve.empty()) Add("Load", {Curve(curve)}, &out);
  absl::StrAppend(&out, "<h2>Numbers</h2>\n<pre>", bench::EscapeHtml(ComparisonText(runs)),
                  "</pre>\n</body></html>\n");
  return out;
}

absl::Status SaveHtmlPage(const std::string& path, const std::string& page) {
  std::ofstream out(path, std::ios::binary);
  out << page;
  out.close();
  return out ? absl::OkStatus() : absl::InvalidArgumentError(absl::StrCat(path, ": cannot be written"));
}

}  // namespace orrery::simulate
