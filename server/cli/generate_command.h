// `orrery generate`: one request to a server; text as it comes, or one JSON document.
#ifndef ORRERY_SERVER_CLI_GENERATE_COMMAND_H_
#define ORRERY_SERVER_CLI_GENERATE_COMMAND_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "orrery/v1/inference.pb.h"

namespace orrery::cli {

struct GenerateOptions {
  std::string target = "127.0.0.1:50051";
  bool json = false;
  std::optional<std::string> prompt, prompt_file, token_ids, chat_file;
  std::optional<uint32_t> max_tokens, min_tokens, n, logprobs;
  std::optional<float> temperature, top_p, min_p, presence_penalty, frequency_penalty, repetition_penalty;
  std::optional<int32_t> top_k, priority;
  std::optional<uint64_t> seed;
  std::optional<double> deadline_ms;
  std::vector<std::string> stop, logit_bias;
  std::vector<uint32_t> stop_ids;
  std::string tenant, cache_salt, slo, request_id;
  bool ignore_eos = false;
};

CLI::App* RegisterGenerate(CLI::App& app, GenerateOptions* options);

// INVALID_ARGUMENT names the flag.
absl::StatusOr<orrery::v1::GenerateRequest> MakeRequest(const GenerateOptions& options);
// Returns the exit code.
int RunGenerate(const GenerateOptions& options);

}  // namespace orrery::cli

#endif  // ORRERY_SERVER_CLI_GENERATE_COMMAND_H_
