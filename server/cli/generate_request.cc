// The flags of `orrery generate` and the message they make.
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/cli/generate_command.h"
#include "server/cli/output.h"

namespace orrery::cli {
namespace {

constexpr size_t kMaxPromptBytes = 256 << 20;

absl::Status BadFlag(absl::string_view flag, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, ": ", why));
}

absl::Status ReadTokenIds(const std::string& text, orrery::v1::TokenIds* out) {
  if (text.empty()) return BadFlag("token-ids", "an empty list");
  for (const absl::string_view piece : absl::StrSplit(text, ',')) {
    uint32_t id = 0;
    if (!absl::SimpleAtoi(piece, &id))
      return BadFlag("token-ids", absl::StrCat("'", piece, "' is not an id"));
    out->add_ids(id);
  }
  return absl::OkStatus();
}

absl::Status ReadChat(const std::string& path, orrery::v1::Chat* out) {
  std::string text;
  if (absl::Status status = ReadFile(path, kMaxPromptBytes, &text); !status.ok()) return status;
  const nlohmann::json document = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_array())
    return BadFlag("chat", absl::StrCat(path, ": expected a JSON array of {role, content}"));
  for (size_t i = 0; i < document.size(); ++i) {
    const nlohmann::json& message = document[i];
    const auto is_text = [&](const char* key) {
      return message.is_object() && message.contains(key) && message[key].is_string();
    };
    if (!is_text("role") || !is_text("content")) {
      return BadFlag("chat", absl::StrCat(path, ": message ", i, " needs the strings role and content"));
    }
    auto* turn = out->add_messages();
    turn->set_role(message["role"].get<std::string>());
    turn->set_content(message["content"].get<std::string>());
  }
  return absl::OkStatus();
}

absl::Status ReadPrompt(const GenerateOptions& options, orrery::v1::GenerateRequest* request) {
  const int given = options.prompt.has_value() + options.prompt_file.has_value() +
                    options.token_ids.has_value() + options.chat_file.has_value();
  if (given != 1) return BadFlag("prompt", "give one of --prompt, --prompt-file, --token-ids, --chat");
  if (options.prompt) request->set_text(*options.prompt);
  if (options.prompt_file) return ReadFile(*options.prompt_file, kMaxPromptBytes, request->mutable_text());
  if (options.token_ids) return ReadTokenIds(*options.token_ids, request->mutable_token_ids());
  if (options.chat_file) return ReadChat(*options.chat_file, request->mutable_chat());
  return absl::OkStatus();
}

absl::Status ReadSlo(const GenerateOptions& options, orrery::v1::Slo* out) {
  if (options.deadline_ms) out->set_deadline_ms(*options.deadline_ms);
  if (options.slo.empty()) return absl::OkStatus();
  for (const absl::string_view part : absl::StrSplit(options.slo, ',')) {
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    double value = 0;
    if (!absl::SimpleAtod(pair.second, &value)) return BadFlag("slo", "expected ttft=MS,tpot=MS");
    if (pair.first == "ttft") {
      out->set_ttft_ms(value);
    } else if (pair.first == "tpot") {
      out->set_tpot_ms(value);
    } else {
      return BadFlag("slo", absl::StrCat("unknown objective '", pair.first, "'; known: ttft, tpot"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadBiases(const std::vector<std::string>& biases, orrery::v1::Sampling* out) {
  for (const std::string& text : biases) {
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(text, absl::MaxSplits('=', 1));
    uint32_t id = 0;
    float bias = 0;
    if (!absl::SimpleAtoi(pair.first, &id) || !absl::SimpleAtof(pair.second, &bias)) {
      return BadFlag("logit-bias", absl::StrCat("'", text, "': expected ID=V"));
    }
    (*out->mutable_logit_bias())[id] = bias;
  }
  return absl::OkStatus();
}

absl::Status ReadSampling(const GenerateOptions& options, orrery::v1::Sampling* out) {
  if (options.temperature) out->set_temperature(*options.temperature);
  if (options.top_k) out->set_top_k(*options.top_k);
  if (options.top_p) out->set_top_p(*options.top_p);
  if (options.min_p) out->set_min_p(*options.min_p);
  if (options.presence_penalty) out->set_presence_penalty(*options.presence_penalty);
  if (options.frequency_penalty) out->set_frequency_penalty(*options.frequency_penalty);
  if (options.repetition_penalty) out->set_repetition_penalty(*options.repetition_penalty);
  if (options.seed) out->set_seed(*options.seed);
  if (options.max_tokens) out->set_max_tokens(*options.max_tokens);
  if (options.min_tokens) out->set_min_tokens(*options.min_tokens);
  if (options.n) out->set_n(*options.n);
  if (options.logprobs) out->set_logprobs(*options.logprobs);
  out->set_ignore_eos(options.ignore_eos);
  for (const std::string& stop : options.stop) out->add_stop(stop);
  for (const uint32_t id : options.stop_ids) out->add_stop_token_ids(id);
  return ReadBiases(options.logit_bias, out);
}

}  // namespace

CLI::App* RegisterGenerate(CLI::App& app, GenerateOptions* o) {
  CLI::App* command = app.add_subcommand("generate", "Generate text");
  command->add_option("--target", o->target, "HOST:PORT of the server")->capture_default_str();
  command->add_flag("--json", o->json, "One JSON document on standard output");
  command->add_option("--prompt", o->prompt, "Text");
  command->add_option("--prompt-file", o->prompt_file, "File with the text; - is standard input");
  command->add_option("--token-ids", o->token_ids, "Ids, used exactly as given: 1,2,3");
  command->add_option("--chat", o->chat_file, "File with a JSON array of {role, content}");
  command->add_option("--max-tokens", o->max_tokens,
                      "Output tokens at most (default: what the context leaves)");
  command->add_option("--min-tokens", o->min_tokens, "No end before so many output tokens");
  command->add_option("--temperature", o->temperature, "0 is greedy");
  command->add_option("--top-k", o->top_k, "Only the K most likely tokens");
  command->add_option("--top-p", o->top_p, "Only the most likely tokens with this probability together");
  command->add_option("--min-p", o->min_p, "Only tokens with this share of the best one's probability");
  command->add_option("--presence-penalty", o->presence_penalty, "In [-2, 2]");
  command->add_option("--frequency-penalty", o->frequency_penalty, "In [-2, 2]");
  command->add_option("--repetition-penalty", o->repetition_penalty, "1 is none");
  command->add_option("--logit-bias", o->logit_bias, "ID=V (repeatable)")
      ->take_all()
      ->allow_extra_args(false);
  command->add_option("--seed", o->seed, "Equal seeds give equal answers");
  command->add_option("--stop", o->stop, "Stop string (repeatable)")->take_all()->allow_extra_args(false);
  command->add_option("--stop-id", o->stop_ids, "Stop token id (repeatable)")
      ->take_all()
      ->allow_extra_args(false);
  command->add_option("--n", o->n, "Choices");
  command->add_option("--logprobs", o->logprobs, "Log-probabilities of the chosen and the N best tokens");
  command->add_flag("--ignore-eos", o->ignore_eos, "The model's end tokens do not end the text");
  command->add_option("--priority", o->priority, "Higher is more important");
  command->add_option("--tenant", o->tenant, "On whose account");
  command->add_option("--cache-salt", o->cache_salt, "Shares cached prefixes only with equal salts");
  command->add_option("--slo", o->slo, "Latency objectives: ttft=MS,tpot=MS");
  command->add_option("--deadline-ms", o->deadline_ms, "Ends what is not done by then");
  command->add_option("--request-id", o->request_id, "Name of the request in logs");
  return command;
}

absl::StatusOr<orrery::v1::GenerateRequest> MakeRequest(const GenerateOptions& options) {
  orrery::v1::GenerateRequest request;
  if (absl::Status status = ReadPrompt(options, &request); !status.ok()) return status;
  if (absl::Status status = ReadSampling(options, request.mutable_sampling()); !status.ok()) return status;
  if (absl::Status status = ReadSlo(options, request.mutable_slo()); !status.ok()) return status;
  if (options.priority) request.set_priority(*options.priority);
  request.set_tenant(options.tenant);
  request.set_cache_salt(options.cache_salt);
  request.set_request_id(options.request_id);
  request.set_echo_prompt_token_ids(options.json);
  return request;
}

}  // namespace orrery::cli
