#include "server/bench/text_report.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace orrery::bench {
namespace {

// Above this the client itself was late often enough to matter.
constexpr double kLateMilliseconds = 5;

std::string Cell(const std::optional<double>& value) {
  return value ? absl::StrFormat("%.2f", *value) : std::string("-");
}

void AddRow(absl::string_view name, absl::string_view value, std::string* out) {
  absl::StrAppendFormat(out, "  %-28s %14s\n", name, value);
}

void AddLatencies(const Measurement& block, std::string* out) {
  const std::vector<std::pair<const char*, const std::optional<Summary>*>> rows = {
      {"TTFT", &block.ttft_ms},
      {"TTFT from real send", &block.ttft_sent_ms},
      {"TPOT", &block.tpot_ms},
      {"ITL", &block.itl_ms},
      {"Chunk gap", &block.chunk_gap_ms},
      {"E2E", &block.e2el_ms},
      {"E2E from real send", &block.e2el_sent_ms},
  };
  absl::StrAppendFormat(out, "\n  %-22s %10s %10s %10s %10s %10s %10s\n", "Latency (ms)", "mean", "p50",
                        "p90", "p95", "p99", "p99.9");
  for (const auto& [name, summary] : rows) {
    absl::StrAppendFormat(out, "  %-22s", name);
    if (!summary->has_value()) {
      absl::StrAppendFormat(out, " %10s\n", "-");
      continue;
    }
    absl::StrAppendFormat(out, " %10.2f", (*summary)->mean);
    for (const double value : (*summary)->percentiles) absl::StrAppendFormat(out, " %10.2f", value);
    out->push_back('\n');
  }
}

void AddClasses(const Measurement& block, std::string* out) {
  if (block.per_class.empty()) return;
  absl::StrAppendFormat(out, "\n  %-22s %10s %10s %10s %10s %10s %10s\n", "Class", "completed", "failed",
                        "rejected", "TTFT p99", "TPOT p99", "SLO met");
  for (const auto& [name, one] : block.per_class) {
    const auto p99 = [](const std::optional<Summary>& summary) {
      return summary ? absl::StrFormat("%.2f", summary->percentiles[3]) : std::string("-");
    };
    absl::StrAppendFormat(out, "  %-22.22s %10d %10d %10d %10s %10s %10s\n", name, one.completed, one.failed,
                          one.rejected, p99(one.ttft_ms), p99(one.tpot_ms),
                          one.slo_attainment ? absl::StrFormat("%.1f %%", *one.slo_attainment * 100) : "-");
  }
}

}  // namespace

std::string TextReport(const Measurement& block) {
  std::string out = "Load test\n";
  AddRow("Duration (s)", Cell(block.duration), &out);
  AddRow("Completed", absl::StrCat(block.completed), &out);
  AddRow("Failed", absl::StrCat(block.failed), &out);
  AddRow("Rejected for load", absl::StrCat(block.rejected), &out);
  if (block.cancelled > 0) AddRow("Cancelled as planned", absl::StrCat(block.cancelled), &out);
  if (block.unfinished > 0) AddRow("Not finished", absl::StrCat(block.unfinished), &out);
  for (const auto& [reason, count] : block.errors)
    AddRow(absl::StrCat("  ", reason), absl::StrCat(count), &out);
  AddRow("Input tokens", absl::StrCat(block.total_input_tokens), &out);
  AddRow("  from the prefix cache", absl::StrCat(block.total_cached_tokens), &out);
  AddRow("Output tokens", absl::StrCat(block.total_output_tokens), &out);
  AddRow("Requests/s", Cell(block.request_throughput), &out);
  AddRow("Output tokens/s", Cell(block.output_throughput), &out);
  AddRow("Input + output tokens/s", Cell(block.total_token_throughput), &out);
  if (block.slo_attainment) {
    AddRow("Goodput (requests/s)", Cell(block.request_goodput), &out);
    AddRow("Goodput (tokens/s)", Cell(block.token_goodput), &out);
    AddRow("Service level met", absl::StrFormat("%.1f %%", *block.slo_attainment * 100), &out);
  }
  AddRow("Most requests at once", absl::StrCat(block.max_concurrent_requests), &out);
  AddRow("Send lag p99 (ms)", Cell(block.send_lag_p99_ms), &out);
  AddLatencies(block, &out);
  AddClasses(block, &out);
  if (block.send_lag_p99_ms.value_or(0) > kLateMilliseconds) {
    absl::StrAppend(
        &out,
        "\n  Sends were late (lag above): the client was busy or --max-in-flight held them back.\n"
        "  TTFT and E2E count from the intended time and include that.\n");
  }
  return out;
}

std::string ProgressLine(const DriverProgress& progress, int64_t total) {
  const double seconds = progress.now.seconds();
  return absl::StrFormat(
      "%7.1f s  sent %d of %d  in flight %d  done %d  failed or rejected %d  %.0f tokens/s", seconds,
      progress.sent, total, progress.in_flight, progress.ended, progress.bad,
      seconds > 0 ? static_cast<double>(progress.tokens) / seconds : 0.0);
}

}  // namespace orrery::bench
