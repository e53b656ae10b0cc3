#include "engine/checkpoint/json.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/checkpoint/mapped_file.h"

namespace orrery {
namespace {

using nlohmann::json;

// Counts before anything is built, so that the limits hold for the parser too.
absl::Status CheckLimits(absl::string_view text, absl::string_view what, const JsonLimits& limits) {
  if (static_cast<int64_t>(text.size()) > limits.max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": ", text.size(), " bytes of JSON, at most ", limits.max_bytes));
  }
  int depth = 0;
  int64_t values = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      ++values;
      if (++depth > limits.max_depth) {
        return absl::InvalidArgumentError(absl::StrCat(what, ": JSON nested deeper than ", limits.max_depth));
      }
    } else if (c == '}' || c == ']') {
      --depth;
    } else if (c == ',') {
      ++values;
    }
  }
  if (values > limits.max_values) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": more than ", limits.max_values, " JSON values"));
  }
  return absl::OkStatus();
}

// Unsigned values above 2^63 would wrap.
bool FitsInt64(const json& value) {
  return value.is_number_integer() &&
         (!value.is_number_unsigned() || value.get<uint64_t>() <= uint64_t{INT64_MAX});
}

}  // namespace

absl::StatusOr<json> ParseJsonObject(absl::string_view text, absl::string_view what,
                                     const JsonLimits& limits) {
  if (absl::Status status = CheckLimits(text, what, limits); !status.ok()) return status;
  try {
    std::unordered_set<std::string> keys;
    std::string twice;
    const auto watch = [&](int depth, json::parse_event_t event, json& value) {
      if (event == json::parse_event_t::key && depth == 1) {
        const auto& key = value.get_ref<const std::string&>();
        if (!keys.insert(key).second) twice = key;
      }
      return true;
    };
    json parsed = json::parse(text.begin(), text.end(), watch);
    if (!parsed.is_object()) return absl::InvalidArgumentError(absl::StrCat(what, ": not a JSON object"));
    if (!twice.empty())
      return absl::InvalidArgumentError(absl::StrCat(what, ": key '", twice, "' occurs twice"));
    return parsed;
  } catch (const json::exception& e) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": ", e.what()));
  }
}

absl::StatusOr<json> ReadJsonObject(const std::string& path, const JsonLimits& limits) {
  absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const auto bytes = file->bytes();
  return ParseJsonObject({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path, limits);
}

const json* JsonFields::Find(const char* key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

bool JsonFields::Has(const char* key) const { return Find(key) != nullptr; }

absl::Status JsonFields::Error(const char* key, absl::string_view problem) const {
  return absl::InvalidArgumentError(absl::StrCat(what_, ": ", key, " ", problem));
}

absl::StatusOr<int64_t> JsonFields::Int(const char* key, int64_t low, int64_t high,
                                        std::optional<int64_t> fallback) const {
  const json* value = Find(key);
  if (value == nullptr) {
    if (fallback.has_value()) return *fallback;
    return Error(key, "is missing");
  }
  if (!FitsInt64(*value) || value->get<int64_t>() < low || value->get<int64_t>() > high) {
    return Error(key, absl::StrCat("must be an integer in [", low, ", ", high, "]"));
  }
  return value->get<int64_t>();
}

absl::StatusOr<double> JsonFields::Number(const char* key, double low, double high,
                                          std::optional<double> fallback) const {
  const json* value = Find(key);
  if (value == nullptr) {
    if (fallback.has_value()) return *fallback;
    return Error(key, "is missing");
  }
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (!(number >= low && number <= high)) {
    return Error(key, absl::StrCat("must be a number in [", low, ", ", high, "]"));
  }
  return number;
}

absl::StatusOr<bool> JsonFields::Bool(const char* key, bool fallback) const {
  const json* value = Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return Error(key, "must be true or false");
  return value->get<bool>();
}

absl::StatusOr<std::string> JsonFields::String(const char* key, std::optional<std::string> fallback) const {
  const json* value = Find(key);
  if (value == nullptr) {
    if (fallback.has_value()) return *std::move(fallback);
    return Error(key, "is missing");
  }
  if (!value->is_string()) return Error(key, "must be a string");
  return value->get<std::string>();
}

absl::StatusOr<const json*> JsonFields::Object(const char* key) const {
  const json* value = Find(key);
  if (value != nullptr && !value->is_object()) return Error(key, "must be an object");
  return value;
}

absl::StatusOr<std::vector<TokenId>> JsonFields::TokenIds(const char* key, int64_t vocab_size) const {
  constexpr size_t kMaxIds = 1024;
  std::vector<TokenId> ids;
  const json* value = Find(key);
  if (value == nullptr) return ids;
  const json list = value->is_array() ? *value : json::array({*value});
  if (list.size() > kMaxIds) return Error(key, absl::StrCat("has more than ", kMaxIds, " ids"));
  for (const json& id : list) {
    if (!FitsInt64(id) || id.get<int64_t>() < 0 || id.get<int64_t>() >= vocab_size) {
      return Error(key, absl::StrCat("must hold token ids in [0, ", vocab_size, ")"));
    }
    ids.push_back(id.get<TokenId>());
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace orrery
