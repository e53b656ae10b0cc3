// Line, step and scatter plots as inline SVG, for a page without scripts or outside files. Colours come from
// the page's style sheet (classes s0 to s5), so that they follow its light or dark theme.
#ifndef ORRERY_SERVER_BENCH_SVG_PLOT_H_
#define ORRERY_SERVER_BENCH_SVG_PLOT_H_

#include <string>
#include <utility>
#include <vector>

namespace orrery::bench {

enum class SeriesStyle { kLine, kStep, kPoints };

struct Series {
  std::string label;  // of the legend; none when empty
  SeriesStyle style = SeriesStyle::kLine;
  int color = 0;  // [0, kSeriesColors)
  bool dashed = false;
  std::vector<std::pair<double, double>> points;  // finite; ascending x but for kPoints
};

inline constexpr int kSeriesColors = 6;

struct Plot {
  std::string title;
  std::string x_label;
  std::string y_label;
  bool log_x = false;  // points with x <= 0 are drawn at the left edge
  double x_max = 0;    // 0: from the data; else what lies beyond is left out
  double y_max = 0;    // 0: from the data
  std::vector<Series> series;
  std::vector<std::pair<double, std::string>> x_marks;  // dashed vertical lines with a label
};

// An <svg> element; a text instead of axes when there is nothing to show.
std::string RenderSvg(const Plot& plot);

// At most `most` of the points, spread evenly over the list, the first and last among them.
std::vector<std::pair<double, double>> Thin(const std::vector<std::pair<double, double>>& points,
                                            size_t most);

// Escapes text for HTML and attributes.
std::string EscapeHtml(const std::string& text);

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_SVG_PLOT_H_
