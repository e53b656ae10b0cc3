#include "server/cost/csv_rows.h"

#include <algorithm>

#include "scheduler/base/text.h"

namespace orrery {
namespace {

std::string_view TakeLine(std::string_view* text) {
  const size_t end = text->find('\n');
  std::string_view line = text->substr(0, end);
  *text = end == std::string_view::npos ? std::string_view() : text->substr(end + 1);
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

}  // namespace

absl::StatusOr<CsvRows> CsvRows::Open(std::string_view path, std::string_view text,
                                      const std::vector<std::string_view>& columns) {
  CsvRows rows;
  rows.path_ = std::string(path);
  rows.rest_ = text;
  const std::vector<std::string_view> header = Split(TakeLine(&rows.rest_), ',');
  rows.width_ = header.size();
  for (std::string_view column : columns) {
    const bool optional = column.back() == '?';
    if (optional) column.remove_suffix(1);
    const auto found = std::find(header.begin(), header.end(), column);
    if (found == header.end() && !optional) {
      return absl::InvalidArgumentError(Cat(path, ":1: column '", column, "' is missing"));
    }
    rows.names_.emplace_back(column);
    rows.at_.emplace_back();
    if (found != header.end()) rows.at_.back() = static_cast<size_t>(found - header.begin());
  }
  return rows;
}

absl::StatusOr<bool> CsvRows::Next() {
  std::string_view line;
  while (line.empty()) {
    if (rest_.empty()) return false;
    line = TakeLine(&rest_);
    ++line_;
  }
  fields_ = Split(line, ',');
  if (fields_.size() == width_) return true;
  return absl::InvalidArgumentError(
      Cat(path_, ":", line_, ": ", fields_.size(), " fields, the header has ", width_));
}

absl::Status CsvRows::Numbers(std::initializer_list<std::pair<size_t, double*>> columns) const {
  for (const auto& [column, target] : columns) {
    const auto number = ParseNumber<double>(Text(column));
    if (!number || !(*number > 0 && *number <= 1e12)) {
      return absl::InvalidArgumentError(Cat(path_, ":", line_, ": ", names_[column], " '",
                                            Text(column).substr(0, 64), "' is not a number above 0"));
    }
    *target = *number;
  }
  return absl::OkStatus();
}

}  // namespace orrery
