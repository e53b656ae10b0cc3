#ifndef ORRERY_SERVER_TEXT_SPECIAL_ROLES_H_
#define ORRERY_SERVER_TEXT_SPECIAL_ROLES_H_

// Which texts tokenizer_config.json and special_tokens_map.json give a role: bos_token, eos_token, pad_token
// and so on, and the nameless additional_special_tokens. Of two files that name a role the first one read
// holds.

#include <map>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "nlohmann/json_fwd.hpp"

namespace orrery {

class SpecialRoles {
 public:
  // `file` names the object in errors.
  absl::Status Read(const nlohmann::json& json, const char* file);

  // The text of "bos_token" and the like; empty without one.
  const std::string& TextOf(const char* role) const;
  // The texts by role, those without a name left out.
  const std::map<std::string, std::string>& roles() const { return roles_; }
  // The texts of all roles.
  const std::set<std::string>& texts() const { return texts_; }

 private:
  std::map<std::string, std::string> roles_;
  std::set<std::string> texts_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_SPECIAL_ROLES_H_
