// The two CSV formats: `lengths` and `azure`.
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/civil_time.h"
#include "absl/time/time.h"
#include "server/traces/line_reader.h"
#include "server/traces/trace_reader.h"

namespace orrery {
namespace {

struct Columns {
  absl::string_view prompt;
  absl::string_view output;
  absl::string_view arrival;
  bool arrival_required;
};
constexpr Columns kLengthsColumns = {"num_prefill_tokens", "num_decode_tokens", "arrived_at", false};
constexpr Columns kAzureColumns = {"ContextTokens", "GeneratedTokens", "TIMESTAMP", true};

// "2023-11-16 18:15:46.6805900" (UTC; up to nanoseconds) in seconds since `first`, which the first call sets.
// Differences are taken in integers: a double of seconds since 1970 has no room for 100 ns.
bool ParseTimestamp(absl::string_view text, std::optional<absl::Time>* first, double* seconds) {
  absl::Time time;
  std::string error;
  if (!absl::ParseTime("%Y-%m-%d %H:%M:%E*S", text, absl::UTCTimeZone(), &time, &error) &&
      !absl::ParseTime(absl::RFC3339_full, text, &time, &error)) {
    return false;
  }
  if (!first->has_value()) *first = time;
  *seconds = absl::ToDoubleSeconds(time - **first);
  return true;
}

class CsvTrace : public TraceReader {
 public:
  CsvTrace(LineReader lines, Columns columns, bool civil_time)
      : lines_(std::move(lines)), columns_(columns), civil_time_(civil_time) {}

  absl::Status ReadHeader() {
    auto more = lines_.Next();
    if (!more.ok()) return more.status();
    if (!*more) return lines_.Error("empty file, expected a header");
    SplitLine();
    for (size_t i = 0; i < fields_.size(); ++i) {
      if (fields_[i] == columns_.prompt) prompt_ = static_cast<int>(i);
      if (fields_[i] == columns_.output) output_ = static_cast<int>(i);
      if (fields_[i] == columns_.arrival) arrival_ = static_cast<int>(i);
    }
    num_columns_ = fields_.size();
    if (prompt_ < 0 || output_ < 0 || (arrival_ < 0 && columns_.arrival_required)) {
      return lines_.Error(absl::StrCat("header must name ", columns_.arrival_required ? columns_.arrival : "",
                                       columns_.arrival_required ? "," : "", columns_.prompt, ",",
                                       columns_.output));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Next(TraceRow* row) override {
    do {
      auto more = lines_.Next();
      if (!more.ok()) return more.status();
      if (!*more) return false;
    } while (absl::StripAsciiWhitespace(lines_.line()).empty());
    SplitLine();
    if (fields_.size() != num_columns_) {
      return lines_.Error(absl::StrCat(fields_.size(), " fields, the header has ", num_columns_));
    }
    row->line = lines_.number();
    row->hash_ids.clear();
    row->arrival_s.reset();
    if (auto s = ParseLength(prompt_, columns_.prompt, &row->prompt_tokens); !s.ok()) return s;
    if (auto s = ParseLength(output_, columns_.output, &row->output_tokens); !s.ok()) return s;
    if (arrival_ >= 0) {
      double seconds = 0;
      const absl::string_view text = fields_[arrival_];
      const bool parsed =
          civil_time_ ? ParseTimestamp(text, &first_time_, &seconds) : absl::SimpleAtod(text, &seconds);
      if (!parsed || !std::isfinite(seconds)) {
        return lines_.Error(absl::StrCat(columns_.arrival, " '", text, "' is not a time"));
      }
      row->arrival_s = seconds;
    }
    return true;
  }

 private:
  void SplitLine() {
    fields_.clear();
    for (absl::string_view field : absl::StrSplit(lines_.line(), ',')) {
      fields_.push_back(absl::StripAsciiWhitespace(field));
    }
  }

  absl::Status ParseLength(int column, absl::string_view name, int32_t* out) const {
    int64_t value = 0;
    if (!absl::SimpleAtoi(fields_[column], &value) || value < 1 || value > kMaxTraceTokens) {
      return lines_.Error(absl::StrCat(name, " '", fields_[column].substr(0, 32), "' is not a length in [1, ",
                                       kMaxTraceTokens, "]"));
    }
    *out = static_cast<int32_t>(value);
    return absl::OkStatus();
  }

  LineReader lines_;
  const Columns columns_;
  const bool civil_time_;
  std::vector<absl::string_view> fields_;  // of the current line
  size_t num_columns_ = 0;
  int prompt_ = -1;
  int output_ = -1;
  int arrival_ = -1;
  std::optional<absl::Time> first_time_;
};

absl::StatusOr<std::unique_ptr<TraceReader>> OpenCsv(const std::string& path, Columns columns,
                                                     bool civil_time) {
  auto lines = LineReader::Open(path);
  if (!lines.ok()) return lines.status();
  auto trace = std::make_unique<CsvTrace>(*std::move(lines), columns, civil_time);
  if (auto status = trace->ReadHeader(); !status.ok()) return status;
  return trace;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TraceReader>> OpenLengthsTrace(const std::string& path) {
  return OpenCsv(path, kLengthsColumns, /*civil_time=*/false);
}

absl::StatusOr<std::unique_ptr<TraceReader>> OpenAzureTrace(const std::string& path) {
  return OpenCsv(path, kAzureColumns, /*civil_time=*/true);
}

}  // namespace orrery
