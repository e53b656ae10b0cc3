#include "server/text/special_roles.h"

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace orrery {
namespace {

// A role is a string or a token object with its text as "content".
std::string TextOfValue(const nlohmann::json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content") && value["content"].is_string()) {
    return value["content"].get<std::string>();
  }
  return "";
}

}  // namespace

absl::Status SpecialRoles::Read(const nlohmann::json& json, const char* file) {
  if (!json.is_object()) return absl::InvalidArgumentError(absl::StrCat(file, ": an object is expected"));
  for (const char* role :
       {"bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"}) {
    const auto it = json.find(role);
    if (it == json.end()) continue;
    const std::string text = TextOfValue(*it);
    if (text.empty()) continue;
    roles_.emplace(role, text);
    texts_.insert(text);
  }
  const auto more = json.find("additional_special_tokens");
  if (more == json.end() || !more->is_array()) return absl::OkStatus();
  for (const nlohmann::json& value : *more) texts_.insert(TextOfValue(value));
  return absl::OkStatus();
}

const std::string& SpecialRoles::TextOf(const char* role) const {
  static const std::string* const kNone = new std::string;
  const auto it = roles_.find(role);
  return it == roles_.end() ? *kNone : it->second;
}

}  // namespace orrery
