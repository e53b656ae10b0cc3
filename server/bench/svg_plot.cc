#include "server/bench/svg_plot.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace orrery::bench {
namespace {

constexpr double kWidth = 560;
constexpr double kHeight = 312;
constexpr double kLeft = 58;
constexpr double kRight = 14;
constexpr double kTop = 46;
constexpr double kBottom = 44;

// One axis: data range, pixels and tick positions.
struct Axis {
  double low = 0;
  double high = 1;
  bool log = false;
  double pixel_low = 0;
  double pixel_high = 1;
  std::vector<double> ticks;

  double Pixel(double value) const {
    const double v = log ? std::log10(std::max(value, low)) : value;
    const double a = log ? std::log10(low) : low;
    const double b = log ? std::log10(high) : high;
    return pixel_low + (v - a) / (b - a) * (pixel_high - pixel_low);
  }
};

// 1, 2 or 5 times a power of ten, so that about `count` steps cover `span`.
double NiceStep(double span, int count) {
  const double raw = span / count;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw * 0.999) return factor * power;
  }
  return 10 * power;
}

void LinearTicks(Axis* axis, int count) {
  const double step = NiceStep(axis->high - axis->low, count);
  for (double tick = std::ceil(axis->low / step - 1e-9) * step; tick <= axis->high + step * 1e-6;
       tick += step) {
    axis->ticks.push_back(std::abs(tick) < step * 1e-6 ? 0 : tick);
  }
}

void LogTicks(Axis* axis) {
  const double decades = std::log10(axis->high / axis->low);
  for (int power = static_cast<int>(std::floor(std::log10(axis->low))); power <= std::log10(axis->high);
       ++power) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor > 1 && decades > 2.5) continue;
      const double tick = factor * std::pow(10, power);
      if (tick >= axis->low * 0.999 && tick <= axis->high * 1.001) axis->ticks.push_back(tick);
    }
  }
}

Axis MakeX(const Plot& plot) {
  Axis axis;
  axis.pixel_low = kLeft;
  axis.pixel_high = kWidth - kRight;
  axis.log = plot.log_x;
  double low = INFINITY;
  double high = -INFINITY;
  for (const Series& series : plot.series) {
    for (const auto& [x, unused] : series.points) {
      if (plot.x_max > 0 && x > plot.x_max) continue;
      high = std::max(high, x);
      if (!plot.log_x || x > 0) low = std::min(low, x);
    }
  }
  if (plot.log_x && std::isfinite(low) && high > low) {
    axis.low = low;
    axis.high = high;
    LogTicks(&axis);
    return axis;
  }
  axis.log = false;
  axis.low = 0;
  axis.high = high > 0 ? high : 1;
  LinearTicks(&axis, 7);
  return axis;
}

Axis MakeY(const Plot& plot) {
  Axis axis;
  axis.pixel_low = kHeight - kBottom;
  axis.pixel_high = kTop;
  axis.high = plot.y_max;
  if (axis.high <= 0) {
    for (const Series& series : plot.series) {
      for (const auto& [unused, y] : series.points) axis.high = std::max(axis.high, y * 1.05);
    }
  }
  if (axis.high <= 0) axis.high = 1;
  LinearTicks(&axis, 5);
  return axis;
}

std::string Number(double value) {
  const double size = std::abs(value);
  if (size >= 1e6) return absl::StrFormat("%gM", value * 1e-6);
  if (size >= 1e4) return absl::StrFormat("%gk", value * 1e-3);
  return absl::StrFormat("%g", std::round(value * 1e6) * 1e-6);
}

void DrawAxes(const Plot& plot, const Axis& x, const Axis& y, std::string* out) {
  for (const double tick : y.ticks) {
    const double at = y.Pixel(tick);
    absl::StrAppendFormat(out, "<line class=\"grid\" x1=\"%.0f\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\"/>",
                          kLeft, kWidth - kRight, at, at);
    absl::StrAppendFormat(out, "<text class=\"tick\" x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%s</text>",
                          kLeft - 6, at + 4, Number(tick));
  }
  for (const double tick : x.ticks) {
    const double at = x.Pixel(tick);
    absl::StrAppendFormat(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.0f\" y2=\"%.0f\"/>", at,
                          at, kTop, kHeight - kBottom);
    absl::StrAppendFormat(out, "<text class=\"tick\" x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%s</text>",
                          at, kHeight - kBottom + 16, Number(tick));
  }
  absl::StrAppendFormat(out, "<text class=\"title\" x=\"%.0f\" y=\"18\">%s</text>", kLeft,
                        EscapeHtml(plot.title));
  absl::StrAppendFormat(out, "<text class=\"axis\" x=\"%.0f\" y=\"%.0f\" text-anchor=\"middle\">%s</text>",
                        (kLeft + kWidth - kRight) / 2, kHeight - 8, EscapeHtml(plot.x_label));
  absl::StrAppendFormat(out,
                        "<text class=\"axis\" transform=\"translate(13 %.0f) rotate(-90)\" "
                        "text-anchor=\"middle\">%s</text>",
                        (kTop + kHeight - kBottom) / 2, EscapeHtml(plot.y_label));
}

void DrawSeries(const Series& series, const Axis& x, const Axis& y, std::string* out) {
  if (series.style == SeriesStyle::kPoints) {
    absl::StrAppendFormat(out, "<g class=\"p s%d\">", series.color);
    for (const auto& [px, py] : series.points) {
      if (px > x.high) continue;
      absl::StrAppendFormat(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.2\"/>", x.Pixel(px), y.Pixel(py));
    }
    absl::StrAppend(out, "</g>");
    return;
  }
  absl::StrAppendFormat(out, "<path class=\"l s%d%s\" d=\"", series.color, series.dashed ? " d" : "");
  bool first = true;
  for (const auto& [px, py] : series.points) {
    if (px > x.high) break;
    if (!first && series.style == SeriesStyle::kStep) absl::StrAppendFormat(out, "H%.1f", x.Pixel(px));
    absl::StrAppendFormat(out, "%c%.1f %.1f", first ? 'M' : 'L', x.Pixel(px), y.Pixel(py));
    first = false;
  }
  absl::StrAppend(out, "\"/>");
}

// One line between the title and the axes; what has no room there is left out.
void DrawLegend(const Plot& plot, std::string* out) {
  constexpr double kBase = 36;
  constexpr double kLetter = 6.2;
  constexpr size_t kMaxLetters = 28;
  double at = kLeft;
  for (const Series& series : plot.series) {
    if (series.label.empty()) continue;
    const std::string label =
        series.label.size() <= kMaxLetters ? series.label : series.label.substr(0, kMaxLetters - 2) + "..";
    if (at + 22 + kLetter * static_cast<double>(label.size()) > kWidth - kRight) return;
    if (series.style == SeriesStyle::kPoints) {
      absl::StrAppendFormat(out, "<g class=\"p s%d\"><circle cx=\"%.0f\" cy=\"%.0f\" r=\"3.5\"/></g>",
                            series.color, at + 9, kBase - 4);
    } else {
      absl::StrAppendFormat(out, "<path class=\"l s%d%s\" d=\"M%.0f %.0fh18\"/>", series.color,
                            series.dashed ? " d" : "", at, kBase - 4);
    }
    absl::StrAppendFormat(out, "<text class=\"tick\" x=\"%.0f\" y=\"%.0f\">%s</text>", at + 22, kBase,
                          EscapeHtml(label));
    at += 22 + kLetter * static_cast<double>(label.size()) + 14;
  }
}

}  // namespace

std::string RenderSvg(const Plot& plot) {
  std::string out = absl::StrFormat("<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"%s\">", kWidth,
                                    kHeight, EscapeHtml(plot.title));
  const bool empty = std::all_of(plot.series.begin(), plot.series.end(),
                                 [](const Series& series) { return series.points.empty(); });
  if (empty) {
    absl::StrAppendFormat(&out, "<text class=\"title\" x=\"%.0f\" y=\"18\">%s</text>", kLeft,
                          EscapeHtml(plot.title));
    absl::StrAppendFormat(&out,
                          "<text class=\"axis\" x=\"%.0f\" y=\"%.0f\" text-anchor=\"middle\">no data</text>",
                          kWidth / 2, kHeight / 2);
    return absl::StrCat(out, "</svg>\n");
  }
  const Axis x = MakeX(plot);
  const Axis y = MakeY(plot);
  DrawAxes(plot, x, y, &out);
  for (const auto& [value, label] : plot.x_marks) {
    const double at = x.Pixel(value);
    if (at < kLeft || at > kWidth - kRight) continue;
    absl::StrAppendFormat(&out, "<line class=\"mark\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.0f\" y2=\"%.0f\"/>", at,
                          at, kTop, kHeight - kBottom);
    absl::StrAppendFormat(&out, "<text class=\"tick\" x=\"%.1f\" y=\"%.0f\">%s</text>", at + 4, kTop + 12,
                          EscapeHtml(label));
  }
  for (const Series& series : plot.series) {
    if (!series.points.empty()) DrawSeries(series, x, y, &out);
  }
  DrawLegend(plot, &out);
  return absl::StrCat(out, "</svg>\n");
}

std::vector<std::pair<double, double>> Thin(const std::vector<std::pair<double, double>>& points,
                                            size_t most) {
  if (points.size() <= most || most < 2) return points;
  std::vector<std::pair<double, double>> out;
  out.reserve(most);
  for (size_t i = 0; i < most; ++i) out.push_back(points[i * (points.size() - 1) / (most - 1)]);
  return out;
}

std::string EscapeHtml(const std::string& text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}});
}

}  // namespace orrery::bench
