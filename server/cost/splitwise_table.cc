#include "server/cost/splitwise_table.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "scheduler/base/options.h"
#include "scheduler/base/text.h"

namespace orrery {
namespace {

enum Column { kModel, kHardware, kPrompt, kBatch, kPromptTime, kTokenTime, kTensorParallel, kNumColumns };
constexpr std::array<std::string_view, kNumColumns> kNames = {
    "model", "hardware", "prompt_size", "batch_size", "prompt_time", "token_time", "tensor_parallel"};

struct Row {
  std::string name;
  double prompt = 0, batch = 0, prompt_ms = 0, token_ms = 0;
};

// Where each column is; nothing when one is missing.
std::optional<std::array<size_t, kNumColumns>> FindColumns(std::string_view header) {
  const std::vector<std::string_view> fields = Split(header, ',');
  std::array<size_t, kNumColumns> at{};
  for (size_t i = 0; i < kNumColumns; ++i) {
    const auto found = std::find(fields.begin(), fields.end(), kNames[i]);
    if (found == fields.end()) return std::nullopt;
    at[i] = static_cast<size_t>(found - fields.begin());
  }
  return at;
}

std::string_view TakeLine(std::string_view* text) {
  const size_t end = text->find('\n');
  std::string_view line = text->substr(0, end);
  *text = end == std::string_view::npos ? std::string_view() : text->substr(end + 1);
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

std::optional<Row> ReadRow(std::string_view line, const std::array<size_t, kNumColumns>& at) {
  const std::vector<std::string_view> fields = Split(line, ',');
  if (fields.size() <= *std::max_element(at.begin(), at.end())) return std::nullopt;
  Row row;
  row.name = Cat(fields[at[kHardware]], "/", fields[at[kModel]], "/tp", fields[at[kTensorParallel]]);
  const std::pair<Column, double*> numbers[] = {{kPrompt, &row.prompt},
                                                {kBatch, &row.batch},
                                                {kPromptTime, &row.prompt_ms},
                                                {kTokenTime, &row.token_ms}};
  for (const auto& [column, target] : numbers) {
    const auto number = ParseNumber<double>(fields[at[column]]);
    if (!number || !(*number > 0 && *number <= 1e7)) return std::nullopt;
    *target = *number;
  }
  return row;
}

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

bool IsSplitwiseCsv(std::string_view text) { return FindColumns(TakeLine(&text)).has_value(); }

absl::StatusOr<CostTable> SplitwiseTable(std::string_view path, std::string_view text,
                                         std::string_view wanted) {
  const auto columns = FindColumns(TakeLine(&text));
  if (!columns) return absl::InvalidArgumentError(Cat(path, ":1: columns are missing"));
  std::set<std::string> names;
  std::string chosen(wanted);
  // Step times by tokens; decodes and single prompts go before batches of prompts.
  std::map<double, std::vector<double>> single, batched;
  for (int line_number = 2; !text.empty(); ++line_number) {
    const std::string_view line = TakeLine(&text);
    if (line.empty()) continue;
    const std::optional<Row> row = ReadRow(line, *columns);
    if (!row) return absl::InvalidArgumentError(Cat(path, ":", line_number, ": not a measured run"));
    if (chosen.empty()) chosen = row->name;
    names.insert(row->name);
    if (row->name != chosen) continue;
    single[row->batch].push_back(row->token_ms);
    (row->batch == 1 ? single : batched)[row->prompt * row->batch].push_back(row->prompt_ms);
  }
  if (names.count(chosen) == 0) {
    return UnknownName(Cat("entry of ", path), chosen,
                       std::vector<std::string_view>(names.begin(), names.end()));
  }
  for (auto& [tokens, times] : batched) single.try_emplace(tokens, std::move(times));
  CostTable table;
  for (auto& [tokens, times] : single) {
    table.tokens.x.push_back(tokens);
    table.tokens.y.push_back(Median(std::move(times)));
  }
  if (absl::Status status = CheckTable(table); !status.ok()) {
    return absl::InvalidArgumentError(Cat(path, "#", chosen, ": ", std::string(status.message())));
  }
  return table;
}

}  // namespace orrery
