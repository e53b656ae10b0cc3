// Where the values of the option table come from: defaults, file, environment, flags, in this order.
#include <algorithm>
#include <fstream>
#include <iterator>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "server/config/option_table.h"
#include "yaml-cpp/yaml.h"

namespace orrery {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr absl::string_view kActions[] = {"help", "version", "print-config", "dry-run", "config"};

const Option* FindOption(absl::string_view name) {
  for (const Option& option : Options()) {
    if (option.name == name) return &option;
  }
  return nullptr;
}

bool IsList(const Option& option) { return std::holds_alternative<StringList ServerConfig::*>(option.field); }

absl::Status UnknownName(absl::string_view where, absl::string_view what, absl::string_view name,
                         bool flags) {
  std::vector<absl::string_view> known;
  for (const Option& option : Options()) known.push_back(option.name);
  if (flags) known.insert(known.end(), std::begin(kActions), std::end(kActions));
  const absl::string_view nearest = NearestName(name, known);
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": unknown ", what, " '", name.substr(0, 100), "'",
                   nearest.empty() ? "" : absl::StrCat("; did you mean '", nearest, "'?")));
}

// ------------------------------------------------------------------------------------------------- file

// A policy written as {name: N, key: value} becomes "N:key=value,...".
absl::StatusOr<std::string> PolicyText(const YAML::Node& node, absl::string_view where) {
  std::string name;
  std::vector<std::string> options;
  for (const auto& entry : node) {
    if (!entry.first.IsScalar() || !entry.second.IsScalar()) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": a policy's options are plain values"));
    }
    if (entry.first.Scalar() == "name") {
      name = entry.second.Scalar();
    } else {
      options.push_back(absl::StrCat(entry.first.Scalar(), "=", entry.second.Scalar()));
    }
  }
  if (name.empty()) return absl::InvalidArgumentError(absl::StrCat(where, ": a policy needs a 'name'"));
  return options.empty() ? name : absl::StrCat(name, ":", absl::StrJoin(options, ","));
}

absl::Status ApplyEntry(const YAML::Node& key, const YAML::Node& value, const std::string& file,
                        ServerConfig* config) {
  const std::string where = absl::StrCat(file, ":", key.Mark().line + 1);
  if (!key.IsScalar()) return absl::InvalidArgumentError(absl::StrCat(where, ": a key must be a name"));
  const std::string name = absl::StrReplaceAll(key.Scalar(), {{"_", "-"}});
  const Option* option = FindOption(name);
  if (option == nullptr) return UnknownName(where, "key", name, false);
  if (value.IsMap() && option->policy) {
    auto text = PolicyText(value, where);
    return text.ok() ? SetOption(*option, *text, where, config) : text.status();
  }
  if (value.IsSequence() && IsList(*option)) {
    std::vector<std::string> entries;
    for (const auto& entry : value) {
      if (!entry.IsScalar())
        return absl::InvalidArgumentError(absl::StrCat(where, ": ", name, " lists plain values"));
      entries.push_back(entry.Scalar());
    }
    return SetOption(*option, absl::StrJoin(entries, ","), where, config);
  }
  if (!value.IsScalar()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": ", name, " must be a plain value"));
  }
  return SetOption(*option, value.Scalar(), where, config);
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return absl::InvalidArgumentError(absl::StrCat("--config: cannot read '", path, "'"));
  std::string text(kMaxFileBytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(stream.gcount()));
  if (text.size() > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat("--config: '", path, "' is larger than 1 MiB"));
  }
  return text;
}

absl::Status ApplyFile(const std::string& path, ServerConfig* config) {
  auto text = ReadSmallFile(path);
  if (!text.ok()) return text.status();
  try {  // yaml-cpp reports by exceptions
    const YAML::Node root = YAML::Load(*text);
    if (root.IsNull()) return absl::OkStatus();
    if (!root.IsMap()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": expected `name: value` lines"));
    }
    std::vector<std::string> seen;
    for (const auto& entry : root) {
      if (absl::Status status = ApplyEntry(entry.first, entry.second, path, config); !status.ok())
        return status;
      const std::string name = absl::StrReplaceAll(entry.first.Scalar(), {{"_", "-"}});
      if (std::find(seen.begin(), seen.end(), name) != seen.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ":", entry.first.Mark().line + 1, ": '", name, "' is given twice"));
      }
      seen.push_back(name);
    }
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ":", error.mark.line + 1, ": ", error.msg));
  }
  return absl::OkStatus();
}

// ------------------------------------------------------------------------------------------------ flags

struct Flag {
  std::string name;
  std::string value;
  bool has_value = false;
};

bool IsSwitch(absl::string_view name) {
  if (name == "help" || name == "version" || name == "print-config" || name == "dry-run") return true;
  const Option* option = FindOption(name);
  return option != nullptr && std::holds_alternative<bool ServerConfig::*>(option->field);
}

// A switch may stand alone or be followed by on or off; everything else takes one value.
absl::StatusOr<std::vector<Flag>> SplitFlags(absl::Span<const std::string> arguments) {
  std::vector<Flag> flags;
  for (size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view argument = arguments[i];
    if (!absl::StartsWith(argument, "--") || argument.size() == 2) {
      if (argument == "-h")
        argument = "--help";
      else
        return absl::InvalidArgumentError(absl::StrCat("command line: unexpected '", argument, "'"));
    }
    argument.remove_prefix(2);
    Flag flag;
    if (const size_t equals = argument.find('='); equals != absl::string_view::npos) {
      flag = {std::string(argument.substr(0, equals)), std::string(argument.substr(equals + 1)), true};
    } else {
      flag.name = std::string(argument);
      const bool more = i + 1 < arguments.size();
      const bool is_switch = IsSwitch(flag.name);
      if (more && (!is_switch || arguments[i + 1] == "on" || arguments[i + 1] == "off")) {
        flag.value = arguments[++i];
        flag.has_value = true;
      }
    }
    const Option* option = FindOption(flag.name);
    const auto same =
        std::find_if(flags.begin(), flags.end(), [&](const Flag& f) { return f.name == flag.name; });
    if (option != nullptr && IsList(*option) && same != flags.end() && flag.has_value) {
      absl::StrAppend(&same->value, ",", flag.value);
    } else {
      flags.push_back(std::move(flag));
    }
  }
  return flags;
}

std::optional<ConfigAction> ActionOf(absl::string_view name) {
  if (name == "help") return ConfigAction::kHelp;
  if (name == "version") return ConfigAction::kVersion;
  if (name == "print-config") return ConfigAction::kPrintConfig;
  if (name == "dry-run") return ConfigAction::kDryRun;
  return std::nullopt;
}

absl::Status ApplyFlag(const Flag& flag, ServerConfig* config) {
  const std::string where = absl::StrCat("--", flag.name);
  const Option* option = FindOption(flag.name);
  if (option == nullptr) return UnknownName("command line", "flag", flag.name, true);
  if (flag.has_value) return SetOption(*option, flag.value, where, config);
  if (IsSwitch(flag.name)) return SetOption(*option, "on", where, config);
  return absl::InvalidArgumentError(absl::StrCat(where, ": needs a value (", option->value, ")"));
}

}  // namespace

absl::StatusOr<LoadedConfig> LoadConfig(absl::Span<const std::string> arguments,
                                        const std::function<const char*(const char*)>& environment) {
  auto flags = SplitFlags(arguments);
  if (!flags.ok()) return flags.status();
  LoadedConfig loaded;
  std::string file;
  if (const char* value = environment("ORRERY_CONFIG")) file = value;
  for (const Flag& flag : *flags) {
    if (flag.name == "config") {
      if (flag.value.empty()) return absl::InvalidArgumentError("--config: needs a value (FILE)");
      file = flag.value;
    } else if (auto action = ActionOf(flag.name)) {
      loaded.action = *action;
      if (*action == ConfigAction::kHelp || *action == ConfigAction::kVersion) return loaded;
    }
  }
  if (!file.empty()) {
    if (absl::Status status = ApplyFile(file, &loaded.config); !status.ok()) return status;
  }
  for (const Option& option : Options()) {
    const std::string name =
        absl::StrCat("ORRERY_", absl::AsciiStrToUpper(absl::StrReplaceAll(option.name, {{"-", "_"}})));
    const char* value = environment(name.c_str());
    if (value == nullptr) continue;
    if (absl::Status status = SetOption(option, value, name, &loaded.config); !status.ok()) return status;
  }
  for (const Flag& flag : *flags) {
    if (flag.name == "config" || ActionOf(flag.name)) continue;
    if (absl::Status status = ApplyFlag(flag, &loaded.config); !status.ok()) return status;
  }
  return loaded;
}

}  // namespace orrery
