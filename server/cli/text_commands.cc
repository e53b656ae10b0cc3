#include "server/cli/text_commands.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "router/policy/registry.h"
#include "scheduler/policy/registry.h"
#include "server/cli/output.h"
#include "server/text/tokenizer.h"

namespace orrery::cli {
namespace {

using nlohmann::json;
constexpr size_t kMaxTextBytes = 8 << 20;  // the tokenizer's own default

void PrintLine(const json& document) {
  std::puts(document.dump(-1, ' ', false, json::error_handler_t::replace).c_str());
}

std::string Text(std::string_view text) { return std::string(text); }

json ToJson(const PolicyInfo& policy) {
  json options = json::array();
  for (const OptionInfo& option : policy.options) {
    options.push_back({{"name", Text(option.name)},
                       {"type", Text(option.type)},
                       {"default", option.default_value},
                       {"range", {option.low, option.high}},
                       {"help", Text(option.help)}});
  }
  return {{"kind", Text(policy.kind)},
          {"name", Text(policy.name)},
          {"paper", Text(policy.paper)},
          {"summary", Text(policy.summary)},
          {"options", std::move(options)}};
}

}  // namespace

CLI::App* RegisterTokenize(CLI::App& app, TokenizeOptions* o) {
  CLI::App* command = app.add_subcommand("tokenize", "Text to token ids, without a server");
  command->add_option("--model", o->model, "Checkpoint folder")->required();
  command->add_option("--text", o->text, "Text");
  command->add_option("--text-file", o->text_file, "File with the text; - is standard input");
  command->add_flag("--no-special", o->no_special, "Leave BOS and EOS out");
  command->add_flag("--json", o->json, "One JSON document on standard output");
  return command;
}

int RunTokenize(const TokenizeOptions& options) {
  if (options.text.has_value() == options.text_file.has_value()) {
    return Fail(absl::InvalidArgumentError("--text: give one of --text, --text-file"), options.json);
  }
  std::string text = options.text.value_or("");
  if (options.text_file) {
    if (absl::Status status = ReadFile(*options.text_file, kMaxTextBytes, &text); !status.ok()) {
      return Fail(status, options.json);
    }
  }
  auto tokenizer = Tokenizer::Load(options.model);
  if (!tokenizer.ok()) return Fail(tokenizer.status(), options.json);
  EncodeOptions encode;
  encode.add_special = !options.no_special;
  const auto ids = (*tokenizer)->Encode(text, encode);
  if (!ids.ok()) return Fail(ids.status(), options.json);
  if (options.json) {
    PrintLine({{"token_ids", *ids}});
  } else {
    for (size_t i = 0; i < ids->size(); ++i) std::printf("%s%d", i == 0 ? "" : ",", (*ids)[i]);
    std::puts("");
  }
  return kDone;
}

CLI::App* RegisterDetokenize(CLI::App& app, DetokenizeOptions* o) {
  CLI::App* command = app.add_subcommand("detokenize", "Token ids to text, without a server");
  command->add_option("--model", o->model, "Checkpoint folder")->required();
  command->add_option("--token-ids", o->token_ids, "1,2,3")->required();
  command->add_flag("--keep-special", o->keep_special, "Write special tokens too");
  command->add_flag("--json", o->json, "One JSON document on standard output");
  return command;
}

int RunDetokenize(const DetokenizeOptions& options) {
  auto tokenizer = Tokenizer::Load(options.model);
  if (!tokenizer.ok()) return Fail(tokenizer.status(), options.json);
  std::vector<TokenId> ids;
  for (const absl::string_view piece : absl::StrSplit(options.token_ids, ',', absl::SkipEmpty())) {
    TokenId id = 0;
    if (!absl::SimpleAtoi(piece, &id) || id < 0 || id >= (*tokenizer)->vocab_size()) {
      return Fail(absl::InvalidArgumentError(absl::StrCat("--token-ids: '", piece, "' is not an id in [0, ",
                                                          (*tokenizer)->vocab_size(), ")")),
                  options.json);
    }
    ids.push_back(id);
  }
  const std::string text = (*tokenizer)->Decode(ids, !options.keep_special);
  if (options.json) {
    PrintLine({{"text", text}});
  } else {
    std::puts(text.c_str());
  }
  return kDone;
}

CLI::App* RegisterPolicies(CLI::App& app, PoliciesOptions* o) {
  CLI::App* command = app.add_subcommand("policies", "The policies that --scheduler, --router, ... can name");
  command->add_flag("--json", o->json, "One JSON document on standard output");
  return command;
}

int RunPolicies(const PoliciesOptions& options) {
  std::vector<PolicyInfo> policies = SchedulerPolicies();
  for (PolicyInfo& policy : RouterPolicies()) policies.push_back(std::move(policy));
  if (options.json) {
    json document = json::array();
    for (const PolicyInfo& policy : policies) document.push_back(ToJson(policy));
    PrintLine(document);
    return kDone;
  }
  for (const PolicyInfo& policy : policies) {
    std::printf("%-10s %-16s %s%s%s\n", Text(policy.kind).c_str(), Text(policy.name).c_str(),
                Text(policy.summary).c_str(), policy.paper.empty() ? "" : "; ", Text(policy.paper).c_str());
    for (const OptionInfo& option : policy.options) {
      std::printf("%28s=%g in [%g, %g]  %s\n", Text(option.name).c_str(), option.default_value, option.low,
                  option.high, Text(option.help).c_str());
    }
  }
  return kDone;
}

}  // namespace orrery::cli
