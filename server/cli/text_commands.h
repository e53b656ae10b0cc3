// `orrery tokenize`, `orrery detokenize`, `orrery policies`: no server needed.
#ifndef ORRERY_SERVER_CLI_TEXT_COMMANDS_H_
#define ORRERY_SERVER_CLI_TEXT_COMMANDS_H_

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

namespace orrery::cli {

struct TokenizeOptions {
  std::string model;
  std::optional<std::string> text, text_file;
  bool no_special = false, json = false;
};
CLI::App* RegisterTokenize(CLI::App& app, TokenizeOptions* options);
int RunTokenize(const TokenizeOptions& options);

struct DetokenizeOptions {
  std::string model, token_ids;
  bool keep_special = false, json = false;
};
CLI::App* RegisterDetokenize(CLI::App& app, DetokenizeOptions* options);
int RunDetokenize(const DetokenizeOptions& options);

struct PoliciesOptions {
  bool json = false;
};
CLI::App* RegisterPolicies(CLI::App& app, PoliciesOptions* options);
int RunPolicies(const PoliciesOptions& options);

}  // namespace orrery::cli

#endif  // ORRERY_SERVER_CLI_TEXT_COMMANDS_H_
