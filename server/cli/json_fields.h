// Typed reading of one JSON object that people write: every field is known, has a type, and is named when it
// is wrong. The first error is kept in status(); reads after it give zeros.
#ifndef ORRERY_SERVER_CLI_JSON_FIELDS_H_
#define ORRERY_SERVER_CLI_JSON_FIELDS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/bench/unknown_name.h"

namespace orrery::cli {

class JsonFields {
 public:
  // `path` opens the names of fields: "classes[2]."; empty for the document itself.
  JsonFields(const nlohmann::json& object, std::string path, std::vector<absl::string_view> known)
      : object_(object), path_(std::move(path)) {
    if (!object.is_object()) {
      Refuse(path_.empty() ? "the document" : path_.substr(0, path_.size() - 1), "must be an object");
      return;
    }
    for (const auto& [key, value] : object.items()) {
      if (std::find(known.begin(), known.end(), key) == known.end() && status_.ok())
        status_ = bench::UnknownName(path_.empty() ? "input" : path_.substr(0, path_.size() - 1), key, known);
    }
  }

  const absl::Status& status() const { return status_; }
  // Null when absent; a JSON null counts as absent.
  const nlohmann::json* Find(const char* key) const {
    if (!object_.is_object()) return nullptr;
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  double Number(const char* key) { return OptionalNumber(key, true).value_or(0.0); }
  std::optional<double> OptionalNumber(const char* key, bool required = false) {
    const nlohmann::json* value = Find(key);
    if (value != nullptr && value->is_number()) return value->get<double>();
    if (value != nullptr || required) Refuse(path_ + key, "must be a number");
    return std::nullopt;
  }
  int64_t Integer(const char* key) { return OptionalInteger(key, true).value_or(0); }
  std::optional<int64_t> OptionalInteger(const char* key, bool required = false) {
    const nlohmann::json* value = Find(key);
    if (value != nullptr) {
      if (const auto integer = AsInteger(*value)) return integer;
    }
    if (value != nullptr || required) Refuse(path_ + key, "must be an integer");
    return std::nullopt;
  }
  std::string String(const char* key, const char* fallback) {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return fallback;
    if (value->is_string()) return value->get<std::string>();
    Refuse(path_ + key, "must be a string");
    return fallback;
  }
  // An empty array when absent and not required.
  const nlohmann::json& Array(const char* key, bool required) {
    static const nlohmann::json kEmpty = nlohmann::json::array();
    const nlohmann::json* value = Find(key);
    if (value != nullptr && value->is_array()) return *value;
    if (value != nullptr || required) Refuse(path_ + key, "must be an array");
    return kEmpty;
  }

  // A whole number, also when it is written as 1e6.
  static std::optional<int64_t> AsInteger(const nlohmann::json& value) {
    constexpr double kExact = 9007199254740992.0;  // 2^53
    if (value.is_number_unsigned()) {
      const auto number = value.get<uint64_t>();
      if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
      return static_cast<int64_t>(number);
    }
    if (value.is_number_integer()) return value.get<int64_t>();
    if (!value.is_number_float()) return std::nullopt;
    const double number = value.get<double>();
    if (!(std::abs(number) <= kExact) || number != std::floor(number)) return std::nullopt;
    return static_cast<int64_t>(number);
  }

  void Refuse(const std::string& field, absl::string_view why) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(field, " ", why));
  }

 private:
  const nlohmann::json& object_;
  std::string path_;
  absl::Status status_;
};

}  // namespace orrery::cli

#endif  // ORRERY_SERVER_CLI_JSON_FIELDS_H_
