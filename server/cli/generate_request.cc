// The flags of `orrery generate` and the message they make.
#include <nlohmann/json.hpp>
#include <utility>

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

// The two sides of NAME=VALUE; the value is empty where there is no sign.
std::pair<absl::string_view, absl::string_view> SplitPair(absl::string_view text) {
  return absl::StrSplit(text, absl::MaxSplits('=', 1));
}

absl::Status ReadSlo(const std::string& text, orrery::v1::Slo* out) {
  if (text.empty()) return absl::OkStatus();
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const auto [name, number] = SplitPair(part);
    double value = 0;
    if (!absl::SimpleAtod(number, &value)) return BadFlag("slo", "expected ttft=MS,tpot=MS");
    if (name == "ttft") {
      out->set_ttft_ms(value);
    } else if (name == "tpot") {
      out->set_tpot_ms(value);
    } else {
      return BadFlag("slo", absl::StrCat("unknown objective '", name, "'; known: ttft, tpot"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadBiases(const std::vector<std::string>& biases, orrery::v1::Sampling* out) {
  for (const std::string& text : biases) {
    const auto [token, number] = SplitPair(text);
    uint32_t id = 0;
    float bias = 0;
    if (!absl::SimpleAtoi(token, &id) || !absl::SimpleAtof(number, &bias)) {
      return BadFlag("logit-bias", absl::StrCat("'", text, "': expected ID=V"));
    }
    (*out->mutable_logit_bias())[id] = bias;
  }
  return absl::OkStatus();
}

// A flag that is a field of a message.
template <typename T, typename Message>
void AddField(CLI::App* command, const char* flag, Message* message, void (Message::*set)(T),
              const char* doc) {
  command->add_option_function<T>(
      flag, [=](const T& value) { (message->*set)(value); }, doc);
}
template <typename Message>
void AddText(CLI::App* command, const char* flag, Message* message, std::string* (Message::*field)(),
             const char* doc) {
  command->add_option_function<std::string>(
      flag, [=](const std::string& value) { *(message->*field)() = value; }, doc);
}

void AddSampling(CLI::App* command, orrery::v1::Sampling* sampling) {
  using S = orrery::v1::Sampling;
  AddField(command, "--max-tokens", sampling, &S::set_max_tokens,
           "Output tokens at most (default: what the context leaves)");
  AddField(command, "--min-tokens", sampling, &S::set_min_tokens, "No end before so many output tokens");
  AddField(command, "--temperature", sampling, &S::set_temperature, "0 is greedy");
  AddField(command, "--top-k", sampling, &S::set_top_k, "Only the K most likely tokens");
  AddField(command, "--top-p", sampling, &S::set_top_p,
           "Only the most likely tokens with this probability together");
  AddField(command, "--min-p", sampling, &S::set_min_p,
           "Only tokens with this share of the best one's probability");
  AddField(command, "--presence-penalty", sampling, &S::set_presence_penalty, "In [-2, 2]");
  AddField(command, "--frequency-penalty", sampling, &S::set_frequency_penalty, "In [-2, 2]");
  AddField(command, "--repetition-penalty", sampling, &S::set_repetition_penalty, "1 is none");
  AddField(command, "--seed", sampling, &S::set_seed, "Equal seeds give equal answers");
  AddField(command, "--n", sampling, &S::set_n, "Choices");
  AddField(command, "--logprobs", sampling, &S::set_logprobs,
           "Log-probabilities of the chosen and the N best tokens");
  AddField(command, "--prompt-logprobs", sampling, &S::set_prompt_logprobs,
           "The same of every token of the prompt (with --json)");
  command
      ->add_option_function<std::vector<std::string>>(
          "--stop",
          [=](const std::vector<std::string>& all) {
            for (const auto& text : all) sampling->add_stop(text);
          },
          "Stop string (repeatable)")
      ->take_all()
      ->allow_extra_args(false);
  command
      ->add_option_function<std::vector<uint32_t>>(
          "--stop-id",
          [=](const std::vector<uint32_t>& all) {
            for (uint32_t id : all) sampling->add_stop_token_ids(id);
          },
          "Stop token id (repeatable)")
      ->take_all()
      ->allow_extra_args(false);
  command->add_flag_callback(
      "--ignore-eos", [=] { sampling->set_ignore_eos(true); }, "The model's end tokens do not end the text");
}

}  // namespace

CLI::App* RegisterGenerate(CLI::App& app, GenerateOptions* o) {
  using R = orrery::v1::GenerateRequest;
  CLI::App* command = app.add_subcommand("generate", "Generate text");
  command->add_option("--target", o->target, "HOST:PORT of the server")->capture_default_str();
  command->add_flag("--json", o->json, "One JSON document on standard output");
  command->add_option("--prompt", o->prompt, "Text");
  command->add_option("--prompt-file", o->prompt_file, "File with the text; - is standard input");
  command->add_option("--token-ids", o->token_ids, "Ids, used exactly as given: 1,2,3");
  command->add_option("--chat", o->chat_file, "File with a JSON array of {role, content}");
  AddSampling(command, o->request.mutable_sampling());
  command->add_option("--logit-bias", o->logit_bias, "ID=V (repeatable)")
      ->take_all()
      ->allow_extra_args(false);
  AddField(command, "--priority", &o->request, &R::set_priority, "Higher is more important");
  AddText(command, "--tenant", &o->request, &R::mutable_tenant, "On whose account");
  AddText(command, "--cache-salt", &o->request, &R::mutable_cache_salt,
          "Shares cached prefixes only with equal salts");
  command->add_option("--slo", o->slo, "Latency objectives: ttft=MS,tpot=MS");
  AddField(command, "--deadline-ms", o->request.mutable_slo(), &orrery::v1::Slo::set_deadline_ms,
           "Ends what is not done by then");
  command->add_option("--timeout", o->timeout_s, "Seconds to wait for the end of the answer; 0: for ever")
      ->capture_default_str();
  AddText(command, "--request-id", &o->request, &R::mutable_request_id, "Name of the request in logs");
  return command;
}

absl::StatusOr<orrery::v1::GenerateRequest> MakeRequest(const GenerateOptions& options) {
  if (!(options.timeout_s >= 0)) return BadFlag("timeout", "must be at least 0 seconds");
  orrery::v1::GenerateRequest request = options.request;
  if (absl::Status status = ReadPrompt(options, &request); !status.ok()) return status;
  if (absl::Status status = ReadBiases(options.logit_bias, request.mutable_sampling()); !status.ok())
    return status;
  if (absl::Status status = ReadSlo(options.slo, request.mutable_slo()); !status.ok()) return status;
  request.set_echo_prompt_token_ids(options.json);
  return request;
}

}  // namespace orrery::cli
