#ifndef ORRERY_SERVER_TEXT_JSON_OBJECT_H_
#define ORRERY_SERVER_TEXT_JSON_OBJECT_H_

// Typed reading of the small JSON objects of a tokenizer's files. The first thing wrong (a field of another
// type, an object that is none) is kept in status() with the field's path; reads after it give the fallback.

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace orrery {

class JsonObject {
 public:
  // `path` names the object in errors, such as "pre_tokenizer.pretokenizers[0]".
  JsonObject(const nlohmann::json& json, std::string path) : json_(json), path_(std::move(path)) {
    if (!json.is_object())
      status_ = absl::InvalidArgumentError(absl::StrCat(path_, ": an object is expected"));
  }

  // An absent or null field gives the fallback.
  std::string String(const char* key, const char* fallback = "") {
    const nlohmann::json& value = Child(key);
    if (value.is_string()) return value.get<std::string>();
    return Refuse(value, key, "a string"), fallback;
  }
  bool Bool(const char* key, bool fallback) {
    const nlohmann::json& value = Child(key);
    if (value.is_boolean()) return value.get<bool>();
    return Refuse(value, key, "true or false"), fallback;
  }
  int64_t Int(const char* key, int64_t fallback) {
    const nlohmann::json& value = Child(key);
    if (value.is_number_integer()) return value.get<int64_t>();
    return Refuse(value, key, "an integer"), fallback;
  }
  // The field's value, a JSON null when there is none.
  const nlohmann::json& Child(const char* key) const {
    static const nlohmann::json kNull;
    if (!json_.is_object()) return kNull;
    const auto it = json_.find(key);
    return it == json_.end() ? kNull : *it;
  }

  const absl::Status& status() const { return status_; }

 private:
  void Refuse(const nlohmann::json& value, const char* key, const char* expected) {
    if (value.is_null() || !status_.ok()) return;
    status_ = absl::InvalidArgumentError(absl::StrCat(path_, ".", key, ": ", expected, " is expected"));
  }

  const nlohmann::json& json_;
  std::string path_;
  absl::Status status_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_JSON_OBJECT_H_
