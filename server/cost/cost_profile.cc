#include "server/cost/cost_profile.h"

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "scheduler/base/options.h"
#include "scheduler/cost/step_cost.h"
#include "server/cost/kernel_profile.h"
#include "server/cost/splitwise_table.h"
#include "server/traces/read_file.h"

namespace orrery {
namespace {

using nlohmann::json;
constexpr size_t kMaxProfileBytes = size_t{64} << 20;

// "gpu/model/tpN/weights", as far as the entry states them.
std::string NameOf(const json& entry) {
  std::string name;
  const auto add = [&](const std::string& part) { absl::StrAppend(&name, name.empty() ? "" : "/", part); };
  for (const char* key : {"gpu", "model", "tp", "weights"}) {
    const auto value = entry.find(key);
    if (value == entry.end()) continue;
    if (value->is_string()) add(value->get<std::string>());
    if (value->is_number_integer()) add(absl::StrCat("tp", value->get<int64_t>()));
  }
  return name;
}

bool IsFit(const json& entry) {
  return entry.is_object() && entry.contains("decode_ms") && entry["decode_ms"].is_object() &&
         entry.contains("prefill_ms") && entry["prefill_ms"].is_object();
}

// The coefficient `key` of one phase; nothing when it is not a number >= 0.
std::optional<double> Coefficient(const json& phase, const char* key) {
  const auto value = phase.find(key);
  if (value == phase.end() || !value->is_number()) return std::nullopt;
  const double number = value->get<double>();
  return std::isfinite(number) && number >= 0 ? std::optional<double>(number) : std::nullopt;
}

absl::StatusOr<CostProfile> ToProfile(const std::string& where, const json& entry) {
  LinearCostOptions cost;
  const std::pair<const char*, double*> decode[] = {
      {"alpha", &cost.alpha_decode}, {"per_seq", &cost.per_seq}, {"per_kv_token", &cost.per_kv_token}};
  const std::pair<const char*, double*> prefill[] = {
      {"alpha", &cost.alpha_prefill}, {"per_token", &cost.per_token}, {"per_token_sq", &cost.per_token_sq}};
  for (const auto& [key, target] : decode) {
    const auto value = Coefficient(entry["decode_ms"], key);
    if (!value) return absl::InvalidArgumentError(absl::StrCat(where, ": decode_ms.", key, " is not a time"));
    *target = *value;
  }
  for (const auto& [key, target] : prefill) {
    const auto value = Coefficient(entry["prefill_ms"], key);
    if (!value)
      return absl::InvalidArgumentError(absl::StrCat(where, ": prefill_ms.", key, " is not a time"));
    *target = *value;
  }
  CostProfile profile;
  profile.cost = FormatLinearCost(cost);
  const auto capacity = entry.find("kv_capacity_tokens");
  if (capacity != entry.end() && capacity->is_number_integer()) {
    profile.kv_capacity_tokens = std::max<int64_t>(0, capacity->get<int64_t>());
  }
  return profile;
}

bool IsForm(const std::string& spec) {
  if (spec == "online") return true;
  for (const char* model : {"constant:", "tile:", "linear:", "table:", "online:"}) {
    if (spec.rfind(model, 0) == 0) return true;
  }
  return false;
}

absl::StatusOr<CostProfile> FromJson(const std::string& path, const std::string& text,
                                     const std::string& wanted) {
  const json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat("cost-profile: ", path, ": not a JSON object"));
  }
  std::vector<std::string> names;
  for (const auto& [unused, list] : document.items()) {
    if (!list.is_array()) continue;
    for (const json& entry : list) {
      if (!IsFit(entry)) continue;
      names.push_back(NameOf(entry));
      const std::string where = absl::StrCat("cost-profile: ", path, "#", names.back());
      if (wanted.empty() || names.back() == wanted) return ToProfile(where, entry);
    }
  }
  if (names.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("cost-profile: ", path, ": no entry with decode_ms and prefill_ms"));
  }
  const absl::Status unknown =
      UnknownName("entry of " + path, wanted, std::vector<std::string_view>(names.begin(), names.end()));
  return absl::InvalidArgumentError(absl::StrCat("cost-profile: ", unknown.message()));
}

absl::StatusOr<CostProfile> FromKernels(const std::string& folder, const std::string& wanted) {
  const auto profile = LoadKernelProfile(folder, wanted);
  if (!profile.ok())
    return absl::InvalidArgumentError(absl::StrCat("cost-profile: ", profile.status().message()));
  return CostProfile{.cost = FormatCostTable(profile->table),
                     .kv_capacity_tokens = profile->kv_capacity_tokens};
}

}  // namespace

absl::StatusOr<CostProfile> LoadCostProfile(const std::string& spec) {
  if (IsForm(spec)) {
    auto cost = ParseStepCost(spec);
    if (!cost.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("cost-profile: ", cost.status().message()));
    }
    return CostProfile{.cost = spec};
  }
  const size_t hash = spec.find('#');
  const std::string path = spec.substr(0, hash);
  const std::string wanted = hash == std::string::npos ? "" : spec.substr(hash + 1);
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return FromKernels(path, wanted);
  auto text = ReadWholeFile(path, kMaxProfileBytes);
  if (!text.ok()) return absl::InvalidArgumentError(absl::StrCat("cost-profile: ", text.status().message()));
  if (!IsSplitwiseCsv(*text)) return FromJson(path, *text, wanted);
  auto table = SplitwiseTable(path, *text, wanted);
  if (!table.ok())
    return absl::InvalidArgumentError(absl::StrCat("cost-profile: ", table.status().message()));
  return CostProfile{.cost = FormatCostTable(*table)};
}

}  // namespace orrery
