#include "server/cost/splitwise_table.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "scheduler/base/options.h"
#include "scheduler/base/text.h"
#include "server/cost/csv_rows.h"

namespace orrery {
namespace {

enum Column : size_t { kModel, kHardware, kTensorParallel, kPrompt, kBatch, kPromptTime, kTokenTime };
constexpr std::array<std::string_view, 7> kNames = {
    "model", "hardware", "tensor_parallel", "prompt_size", "batch_size", "prompt_time", "token_time"};

absl::StatusOr<CsvRows> OpenRows(std::string_view path, std::string_view text) {
  return CsvRows::Open(path, text, {kNames.begin(), kNames.end()});
}

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

bool IsSplitwiseCsv(std::string_view text) { return OpenRows("", text).ok(); }

absl::StatusOr<CostTable> SplitwiseTable(std::string_view path, std::string_view text,
                                         std::string_view wanted) {
  auto rows = OpenRows(path, text);
  if (!rows.ok()) return rows.status();
  std::set<std::string> names;
  std::string chosen(wanted);
  // Step times by tokens; decodes and single prompts go before batches of prompts.
  std::map<double, std::vector<double>> single, batched;
  for (;;) {
    const auto more = rows->Next();
    if (!more.ok()) return more.status();
    if (!*more) break;
    double prompt = 0, batch = 0, prompt_ms = 0, token_ms = 0;
    if (absl::Status status = rows->Numbers(
            {{kPrompt, &prompt}, {kBatch, &batch}, {kPromptTime, &prompt_ms}, {kTokenTime, &token_ms}});
        !status.ok()) {
      return status;
    }
    const std::string name =
        Cat(rows->Text(kHardware), "/", rows->Text(kModel), "/tp", rows->Text(kTensorParallel));
    if (chosen.empty()) chosen = name;
    names.insert(name);
    if (name != chosen) continue;
    single[batch].push_back(token_ms);
    (batch == 1 ? single : batched)[prompt * batch].push_back(prompt_ms);
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
