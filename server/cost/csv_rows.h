// Rows of measurements in CSV text, by the names of their columns. Nothing is quoted in such files.
#ifndef ORRERY_SERVER_COST_CSV_ROWS_H_
#define ORRERY_SERVER_COST_CSV_ROWS_H_

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace orrery {

class CsvRows {
 public:
  // `columns` are numbered from 0 in what follows; those whose names end in '?' may be missing.
  // INVALID_ARGUMENT "PATH:1: ..." names one that is not there. The text must outlive this object.
  static absl::StatusOr<CsvRows> Open(std::string_view path, std::string_view text,
                                      const std::vector<std::string_view>& columns);
  // Moves to the next line that is not empty; false at the end. A row with other fields than the header:
  // INVALID_ARGUMENT "PATH:LINE: ...", as of the rest.
  absl::StatusOr<bool> Next();
  // Empty for a column that is missing.
  std::string_view Text(size_t column) const { return at_[column] ? fields_[*at_[column]] : ""; }
  bool Has(size_t column) const { return at_[column].has_value(); }
  // Above 0 and at most 1e12.
  absl::Status Numbers(std::initializer_list<std::pair<size_t, double*>> columns) const;

 private:
  std::string path_;
  std::string_view rest_;
  std::vector<std::string> names_;
  std::vector<std::optional<size_t>> at_;
  std::vector<std::string_view> fields_;
  size_t width_ = 0;
  int line_ = 1;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_COST_CSV_ROWS_H_
