// `orrery generate`: one request to a server; text as it comes, or one JSON document.
#ifndef ORRERY_SERVER_CLI_GENERATE_COMMAND_H_
#define ORRERY_SERVER_CLI_GENERATE_COMMAND_H_

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "orrery/v1/inference.pb.h"

namespace orrery::cli {

struct GenerateOptions {
  std::string target = "127.0.0.1:50051";
  bool json = false;
  orrery::v1::GenerateRequest request;  // what a flag says outright
  // What has to be read first.
  std::optional<std::string> prompt, prompt_file, token_ids, chat_file;
  std::vector<std::string> logit_bias;
  std::string slo;
  double timeout_s = 0;  // 0: none
};

CLI::App* RegisterGenerate(CLI::App& app, GenerateOptions* options);

// INVALID_ARGUMENT names the flag.
absl::StatusOr<orrery::v1::GenerateRequest> MakeRequest(const GenerateOptions& options);
// Returns the exit code.
int RunGenerate(const GenerateOptions& options);

}  // namespace orrery::cli

#endif  // ORRERY_SERVER_CLI_GENERATE_COMMAND_H_
