// JSON of a checkpoint folder, read with limits: a file written by a stranger can size neither our memory nor
// our stack. Values are fetched by typed getters whose errors name the file, the field and the limit.
#ifndef ORRERY_ENGINE_CHECKPOINT_JSON_H_
#define ORRERY_ENGINE_CHECKPOINT_JSON_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scheduler/base/ids.h"

namespace orrery {

struct JsonLimits {
  int64_t max_bytes = int64_t{4} << 20;
  int max_depth = 16;
  int64_t max_values = 200'000;  // commas and brackets, outside strings
};

// An object at top level, or InvalidArgument that begins with `what` (a file name). A key that occurs twice
// at top level is an error: two readers of one file must not see different values.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, absl::string_view what,
                                               const JsonLimits& limits);
absl::StatusOr<nlohmann::json> ReadJsonObject(const std::string& path, const JsonLimits& limits);

// Typed access to the fields of one object; a field that is absent or null counts as not given.
class JsonFields {
 public:
  // Both must outlive this.
  JsonFields(const nlohmann::json& object, absl::string_view what) : object_(object), what_(what) {}

  bool Has(const char* key) const;
  // Required unless `fallback` is given; in [low, high].
  absl::StatusOr<int64_t> Int(const char* key, int64_t low, int64_t high,
                              std::optional<int64_t> fallback = std::nullopt) const;
  // Finite and in [low, high].
  absl::StatusOr<double> Number(const char* key, double low, double high,
                                std::optional<double> fallback = std::nullopt) const;
  absl::StatusOr<bool> Bool(const char* key, bool fallback) const;
  absl::StatusOr<std::string> String(const char* key, std::optional<std::string> fallback = {}) const;
  // One id or a list of ids in [0, vocab_size), ascending and without repetition; empty when not given.
  absl::StatusOr<std::vector<TokenId>> TokenIds(const char* key, int64_t vocab_size) const;
  // Null when not given.
  absl::StatusOr<const nlohmann::json*> Object(const char* key) const;
  // The value itself, null when not given.
  const nlohmann::json* Find(const char* key) const;

  absl::Status Error(const char* key, absl::string_view problem) const;

 private:
  const nlohmann::json& object_;
  absl::string_view what_;
};

}  // namespace orrery

#endif  // ORRERY_ENGINE_CHECKPOINT_JSON_H_
