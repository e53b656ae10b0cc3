// The one table of options. Each row makes the flag `--name VALUE`, the YAML key `name`, the variable
// `ORRERY_NAME`, a line of --help and a line of --print-config. Precedence: flag, environment, file, default.
//
// Errors are kInvalidArgument with one line that says what and where ("config.yaml:3: ...", "--threads: ...",
// "ORRERY_THREADS: ..."); an unknown name comes with the nearest known one.
#ifndef ORRERY_SERVER_CONFIG_OPTION_TABLE_H_
#define ORRERY_SERVER_CONFIG_OPTION_TABLE_H_

#include <functional>
#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/config/server_config.h"

namespace orrery {

struct Option {
  using Field = std::variant<std::string ServerConfig::*, int64_t ServerConfig::*, bool ServerConfig::*,
                             ByteSize ServerConfig::*, Duration ServerConfig::*, StringList ServerConfig::*>;
  absl::string_view name;  // as in the flag, with dashes
  Field field;
  absl::string_view value;  // how --help calls the value
  absl::string_view doc;
  int64_t min = std::numeric_limits<int64_t>::min();  // of int64_t, bytes, nanoseconds
  int64_t max = std::numeric_limits<int64_t>::max();
  std::vector<absl::string_view> choices = {};  // of strings; empty: any
  bool policy = false;                          // NAME[:key=value,...]; YAML may write {name: N, key: value}
};

absl::Span<const Option> Options();

// What a command line asks for besides the configuration.
enum class ConfigAction { kServe, kHelp, kVersion, kPrintConfig, kDryRun };
struct LoadedConfig {
  ServerConfig config;
  ConfigAction action = ConfigAction::kServe;
};

// `environment` maps a variable's name to its value or null; `arguments` excludes the program's name.
absl::StatusOr<LoadedConfig> LoadConfig(absl::Span<const std::string> arguments,
                                        const std::function<const char*(const char*)>& environment);

// Sets one option from text; `where` opens the error.
absl::Status SetOption(const Option& option, absl::string_view text, absl::string_view where,
                       ServerConfig* config);
// The value as SetOption would read it back.
std::string GetOption(const Option& option, const ServerConfig& config);

std::string HelpText();
// A YAML file that gives exactly this configuration.
std::string PrintConfig(const ServerConfig& config);

// As scheduler/base/options.h has it, for abseil's text.
absl::string_view NearestName(absl::string_view name, absl::Span<const absl::string_view> known);

}  // namespace orrery

#endif  // ORRERY_SERVER_CONFIG_OPTION_TABLE_H_
