#include "server/bench/html_report.h"

#include <fstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/bench/report_plots.h"
#include "server/bench/svg_plot.h"

namespace orrery::bench {
namespace {

constexpr char kStyle[] = R"(
:root{--bg:#fbfbfa;--card:#fff;--ink:#1d2329;--dim:#5b6670;--line:#e3e6e8;
--c0:#2563c9;--c1:#c8600c;--c2:#23803f;--c3:#7a48c4;--c4:#0d7f92;--c5:#c2252f}
@media(prefers-color-scheme:dark){:root{--bg:#14181c;--card:#1b2026;--ink:#e6e9ec;--dim:#9aa5af;--line:#2c343c;
--c0:#6ea5f5;--c1:#f0995a;--c2:#66c480;--c3:#b594ee;--c4:#56c2d3;--c5:#f17780}}
*{box-sizing:border-box}
body{margin:0 auto;padding:28px 20px 48px;max-width:1200px;background:var(--bg);color:var(--ink);
font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif}
h1{font-size:22px;margin:0 0 2px}h2{font-size:15px;margin:32px 0 10px}
p.sub{margin:0 0 20px;color:var(--dim)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(172px,1fr));gap:10px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 14px}
.tile b{display:block;white-space:nowrap;font-size:20px;font-weight:600;font-variant-numeric:tabular-nums}
.tile span{color:var(--dim);font-size:12.5px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr));gap:12px}
.plot{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:8px}
svg{display:block;width:100%;height:auto}
table{border-collapse:collapse;background:var(--card);border:1px solid var(--line);border-radius:8px;width:100%}
th,td{padding:5px 12px;text-align:right;border-top:1px solid var(--line);font-variant-numeric:tabular-nums}
tr:first-child th{border-top:0}th{color:var(--dim);font-weight:500}
th:first-child,td:first-child{text-align:left}
table.kv td{text-align:left;word-break:break-word}table.kv td:first-child{color:var(--dim);width:220px}
.grid{stroke:var(--line);stroke-width:1}.mark{stroke:var(--dim);stroke-dasharray:3 4}
text{fill:var(--ink);font:11.5px system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif}
text.title{font-size:14px;font-weight:600}text.tick,text.axis{fill:var(--dim)}
.l{fill:none;stroke-width:1.8;stroke-linejoin:round}.l.d{stroke-dasharray:5 4}.p{fill-opacity:.55}
.l.s0{stroke:var(--c0)}.l.s1{stroke:var(--c1)}.l.s2{stroke:var(--c2)}
.l.s3{stroke:var(--c3)}.l.s4{stroke:var(--c4)}.l.s5{stroke:var(--c5)}
.p.s0{fill:var(--c0)}.p.s1{fill:var(--c1)}.p.s2{fill:var(--c2)}
.p.s3{fill:var(--c3)}.p.s4{fill:var(--c4)}.p.s5{fill:var(--c5)}
)";

std::string Cell(const std::optional<double>& value, const char* format = "%.2f") {
  if (!value) return "–";
  return absl::StrFormat(absl::ParsedFormat<'f'>(format), *value);
}

void Tile(const std::string& value, const std::string& label, std::string* out) {
  absl::StrAppend(out, "<div class=\"tile\"><b>", value, "</b><span>", label, "</span></div>\n");
}

void Tiles(const Measurement& block, std::string* out) {
  const auto pair = [](const std::optional<Summary>& summary) {
    return summary ? absl::StrFormat("%.1f / %.1f", summary->median, summary->percentiles[3])
                   : std::string("–");
  };
  absl::StrAppend(out, "<div class=\"tiles\">\n");
  Tile(absl::StrCat(block.completed), "requests completed", out);
  Tile(absl::StrCat(block.failed, " / ", block.rejected), "failed / rejected for load", out);
  Tile(Cell(block.request_throughput), "requests/s", out);
  Tile(Cell(block.output_throughput, "%.1f"), "output tokens/s", out);
  Tile(pair(block.ttft_ms), "TTFT p50 / p99 (ms)", out);
  Tile(pair(block.tpot_ms), "TPOT p50 / p99 (ms)", out);
  Tile(pair(block.e2el_ms), "E2E p50 / p99 (ms)", out);
  if (block.slo_attainment) {
    Tile(absl::StrFormat("%.1f %%", *block.slo_attainment * 100), "met their service level", out);
    Tile(Cell(block.request_goodput), "goodput (requests/s)", out);
  }
  Tile(absl::StrCat(block.max_concurrent_requests), "most requests at once", out);
  Tile(Cell(block.send_lag_p99_ms, "%.3f"), "send lag p99 (ms)", out);
  Tile(Cell(block.duration, "%.1f"), "seconds measured", out);
  absl::StrAppend(out, "</div>\n");
}

void LatencyTable(const Measurement& block, std::string* out) {
  absl::StrAppend(
      out,
      "<h2>Latency in milliseconds</h2>\n<table><tr><th></th><th>mean</th><th>std</th><th>p50</th>"
      "<th>p90</th><th>p95</th><th>p99</th><th>p99.9</th></tr>\n");
  const std::vector<std::pair<const char*, const std::optional<Summary>*>> rows = {
      {"Time to first token", &block.ttft_ms},
      {"Time to first token, from the real send", &block.ttft_sent_ms},
      {"Time per output token", &block.tpot_ms},
      {"Inter-token latency", &block.itl_ms},
      {"Gap between messages", &block.chunk_gap_ms},
      {"End to end", &block.e2el_ms},
      {"End to end, from the real send", &block.e2el_sent_ms}};
  for (const auto& [name, summary] : rows) {
    absl::StrAppend(out, "<tr><td>", name, "</td>");
    if (summary->has_value()) {
      absl::StrAppendFormat(out, "<td>%.2f</td><td>%.2f</td>", (*summary)->mean, (*summary)->std_dev);
      for (const double value : (*summary)->percentiles) absl::StrAppendFormat(out, "<td>%.2f</td>", value);
    } else {
      absl::StrAppend(out, "<td colspan=\"7\">no values</td>");
    }
    absl::StrAppend(out, "</tr>\n");
  }
  absl::StrAppend(out, "</table>\n");
}

void ClassTable(const Measurement& block, std::string* out) {
  if (block.per_class.empty()) return;
  absl::StrAppend(out,
                  "<h2>Classes</h2>\n<table><tr><th></th><th>completed</th><th>failed</th><th>rejected</th>"
                  "<th>requests/s</th><th>output tokens/s</th><th>TTFT p50</th><th>TTFT p99</th>"
                  "<th>TPOT p50</th><th>TPOT p99</th><th>level met</th></tr>\n");
  for (const auto& [name, one] : block.per_class) {
    absl::StrAppendFormat(out, "<tr><td>%s</td><td>%d</td><td>%d</td><td>%d</td><td>%s</td><td>%s</td>",
                          EscapeHtml(name), one.completed, one.failed, one.rejected,
                          Cell(one.request_throughput), Cell(one.output_throughput, "%.1f"));
    for (const auto* summary : {&one.ttft_ms, &one.tpot_ms}) {
      for (const size_t percentile : {0, 3}) {
        absl::StrAppend(
            out, "<td>",
            *summary ? absl::StrFormat("%.2f", (*summary)->percentiles[percentile]) : std::string("–"),
            "</td>");
      }
    }
    absl::StrAppend(
        out, "<td>",
        one.slo_attainment ? absl::StrFormat("%.1f %%", *one.slo_attainment * 100) : std::string("–"),
        "</td></tr>\n");
  }
  absl::StrAppend(out, "</table>\n");
}

void ErrorTable(const Measurement& block, std::string* out) {
  if (block.errors.empty()) return;
  absl::StrAppend(out, "<h2>Failures and refusals</h2>\n<table><tr><th>reason</th><th>requests</th></tr>\n");
  for (const auto& [reason, count] : block.errors) {
    absl::StrAppendFormat(out, "<tr><td>%s</td><td>%d</td></tr>\n", EscapeHtml(reason), count);
  }
  absl::StrAppend(out, "</table>\n");
}

void EnvironmentTable(const Environment& environment, std::string* out) {
  const auto row = [&](const std::string& key, const std::string& value) {
    absl::StrAppend(out, "<tr><td>", EscapeHtml(key), "</td><td>", EscapeHtml(value), "</td></tr>\n");
  };
  absl::StrAppend(out, "<h2>How it was measured</h2>\n<table class=\"kv\">\n");
  for (const auto& [key, value] : environment.options) row(absl::StrCat("--", key), value);
  for (const auto& [key, value] : environment.server) {
    if (!value.empty()) row(absl::StrCat("server ", key), value);
  }
  row("client", absl::StrCat(environment.client_version, ", ", environment.compiler));
  row("client machine", absl::StrCat(environment.cpu, ", ", environment.cpus, " CPUs, ", environment.kernel));
  row("load average before", absl::StrFormat("%.2f", environment.load_average_1m));
  absl::StrAppend(out, "</table>\n");
}

void Plots(const char* heading, const std::vector<Plot>& plots, std::string* out) {
  absl::StrAppend(out, "<h2>", heading, "</h2>\n<div class=\"plots\">\n");
  for (const Plot& plot : plots) absl::StrAppend(out, "<div class=\"plot\">", RenderSvg(plot), "</div>\n");
  absl::StrAppend(out, "</div>\n");
}

std::string Subtitle(const RunResult& result) {
  std::string model;
  for (const auto& [key, value] : result.environment.server) {
    if (key == "model" || key == "backend" || key == "dtype") absl::StrAppend(&model, value, " ");
  }
  return EscapeHtml(absl::StrCat(model, "· ", result.environment.date));
}

}  // namespace

std::string HtmlHead(const std::string& title) {
  return absl::StrCat(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
      "<meta name=\"color-scheme\" content=\"light dark\"><title>",
      EscapeHtml(title), "</title><style>", kStyle, "</style></head><body>\n");
}

std::string HtmlReport(const RunResult& result) {
  std::string out = absl::StrCat(HtmlHead("Load test"), "<h1>Load test</h1>\n<p class=\"sub\">",
                                 Subtitle(result), "</p>\n");
  Tiles(result.block, &out);
  Plots("Latency distributions", LatencyPlots(result), &out);
  Plots("Over time", TimelinePlots(result), &out);
  Plots("Request by request", RequestPlots(result), &out);
  LatencyTable(result.block, &out);
  ClassTable(result.block, &out);
  ErrorTable(result.block, &out);
  EnvironmentTable(result.environment, &out);
  absl::StrAppend(&out,
                  "<p class=\"sub\">TTFT and E2E count from the intended send time, TPOT = (E2E - TTFT) / "
                  "(n - 1). Latencies are of completed requests; warm-up is left out of everything but the "
                  "plots over time.</p>\n</body></html>\n");
  return out;
}

absl::Status SaveHtmlReport(const std::string& path, const RunResult& result) {
  std::ofstream out(path, std::ios::binary);
  out << HtmlReport(result);
  out.close();
  return out ? absl::OkStatus() : absl::UnknownError(absl::StrCat(path, ": cannot be written"));
}

}  // namespace orrery::bench
