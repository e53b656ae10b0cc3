#include "server/config/option_table.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "scheduler/base/options.h"
#include "server/config/option_values.h"

namespace orrery {
namespace {

absl::Status OutOfRange(const Option& option, const std::function<std::string(int64_t)>& format) {
  constexpr int64_t kLow = std::numeric_limits<int64_t>::min();
  constexpr int64_t kHigh = std::numeric_limits<int64_t>::max();
  if (option.max == kHigh)
    return absl::InvalidArgumentError(absl::StrCat("must be at least ", format(option.min)));
  if (option.min == kLow)
    return absl::InvalidArgumentError(absl::StrCat("must be at most ", format(option.max)));
  return absl::InvalidArgumentError(
      absl::StrCat("must be in [", format(option.min), ", ", format(option.max), "]"));
}

// One overload per type of field: parse, check the range, store.
struct Setter {
  const Option& option;
  absl::string_view text;
  ServerConfig* config;

  bool in_range(int64_t value) const { return value >= option.min && value <= option.max; }

  absl::Status operator()(std::string ServerConfig::*field) const {
    if (!option.choices.empty() &&
        std::find(option.choices.begin(), option.choices.end(), text) == option.choices.end()) {
      return absl::InvalidArgumentError(absl::StrCat("must be one of ", absl::StrJoin(option.choices, ", ")));
    }
    config->*field = std::string(text);
    return absl::OkStatus();
  }
  absl::Status operator()(bool ServerConfig::*field) const {
    auto value = ParseSwitch(text);
    if (value.ok()) config->*field = *value;
    return value.status();
  }
  absl::Status operator()(int64_t ServerConfig::*field) const {
    auto value = ParseInteger(text);
    if (!value.ok()) return value.status();
    if (!in_range(*value)) return OutOfRange(option, [](int64_t v) { return absl::StrCat(v); });
    config->*field = *value;
    return absl::OkStatus();
  }
  absl::Status operator()(ByteSize ServerConfig::*field) const {
    auto value = ParseByteSize(text);
    if (!value.ok()) return value.status();
    if (!in_range(value->bytes)) return OutOfRange(option, [](int64_t v) { return FormatByteSize({v}); });
    config->*field = *value;
    return absl::OkStatus();
  }
  absl::Status operator()(Duration ServerConfig::*field) const {
    auto value = ParseDuration(text);
    if (!value.ok()) return value.status();
    if (!in_range(value->ns)) return OutOfRange(option, [](int64_t v) { return FormatDuration({v}); });
    config->*field = *value;
    return absl::OkStatus();
  }
  absl::Status operator()(StringList ServerConfig::*field) const {
    config->*field = absl::StrSplit(text, ',', absl::SkipEmpty());
    return absl::OkStatus();
  }
};

struct Getter {
  const ServerConfig& config;
  std::string operator()(std::string ServerConfig::*field) const { return config.*field; }
  std::string operator()(bool ServerConfig::*field) const { return config.*field ? "on" : "off"; }
  std::string operator()(int64_t ServerConfig::*field) const { return absl::StrCat(config.*field); }
  std::string operator()(ByteSize ServerConfig::*field) const { return FormatByteSize(config.*field); }
  std::string operator()(Duration ServerConfig::*field) const { return FormatDuration(config.*field); }
  std::string operator()(StringList ServerConfig::*field) const { return absl::StrJoin(config.*field, ","); }
};

}  // namespace

absl::string_view NearestName(absl::string_view name, absl::Span<const absl::string_view> known) {
  std::vector<std::string_view> names;
  for (const absl::string_view one : known) names.emplace_back(one.data(), one.size());
  const std::string_view nearest = NearestName(std::string_view(name.data(), name.size()), names);
  return {nearest.data(), nearest.size()};
}

absl::Status SetOption(const Option& option, absl::string_view text, absl::string_view where,
                       ServerConfig* config) {
  const absl::Status status = std::visit(Setter{option, text, config}, option.field);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": ", option.name, " = '", text.substr(0, 100), "' ", status.message()));
}

std::string GetOption(const Option& option, const ServerConfig& config) {
  return std::visit(Getter{config}, option.field);
}

std::string HelpText() {
  std::string help =
      "orreryd: serves a language model over gRPC\n\n"
      "  orreryd --model DIR [--config FILE] [options]\n\n"
      "Every option is also a key of the YAML file (--config FILE) and a variable ORRERY_NAME.\n"
      "A flag wins over the environment, that over the file, that over the default.\n\n"
      "  --config FILE                            YAML with the keys below\n"
      "  --dry-run                                print the memory plan and exit\n"
      "  --print-config                           print the configuration as YAML and exit\n"
      "  --version, --help\n\n";
  const ServerConfig defaults;
  for (const Option& option : Options()) {
    const std::string value =
        option.choices.empty() ? std::string(option.value) : absl::StrJoin(option.choices, "|");
    absl::StrAppendFormat(&help, "  %-40s %s", absl::StrCat("--", option.name, " ", value), option.doc);
    const std::string fallback = GetOption(option, defaults);
    absl::StrAppend(&help, fallback.empty() ? "" : absl::StrCat(" [", fallback, "]"), "\n");
  }
  absl::StrAppend(&help, "\nExit codes: 0 clean stop, 2 bad configuration or model, 1 anything else.\n");
  return help;
}

std::string PrintConfig(const ServerConfig& config) {
  std::string out;
  for (const Option& option : Options()) {
    // Single quotes keep YAML from reading on, off and numbers its own way; a quote inside is doubled.
    absl::StrAppend(&out, option.name, ": '", absl::StrReplaceAll(GetOption(option, config), {{"'", "''"}}),
                    "'\n");
  }
  return out;
}

}  // namespace orrery
