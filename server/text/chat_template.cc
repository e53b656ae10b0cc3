#include "server/text/chat_template.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "server/text/utf8.h"

namespace orrery {
namespace {

// Templates build tokens such as <|user|> from the role, so these words count as the template's; others do
// not.
constexpr std::array<std::string_view, 6> kKnownRoles = {"system", "user",      "assistant",
                                                         "tool",   "developer", "function"};

void SetConstant(jinja::Map& map, std::string_view name, jinja::Value value) {
  map.items.emplace_back(jinja::Text(std::string(name), true), std::move(value));
}

absl::StatusOr<jinja::Value> MessageList(const std::vector<ChatMessage>& messages) {
  jinja::List list;
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (FindInvalidUtf8(message.role) != std::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat("messages[", i, "].role is not valid UTF-8"));
    }
    if (FindInvalidUtf8(message.content) != std::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat("messages[", i, "].content is not valid UTF-8"));
    }
    const bool known = std::find(kKnownRoles.begin(), kKnownRoles.end(), message.role) != kKnownRoles.end();
    jinja::Map map;
    SetConstant(map, "role", jinja::Value(jinja::Text(message.role, known)));
    SetConstant(map, "content", jinja::Value::FromRequest(message.content));
    list.items.push_back(jinja::Value(std::move(map)));
  }
  return jinja::Value(std::move(list));
}

}  // namespace

absl::StatusOr<ChatTemplate> ChatTemplate::Parse(std::string_view source,
                                                 const std::map<std::string, std::string>& special_tokens,
                                                 const jinja::Limits& limits) {
  for (const auto& [name, text] : special_tokens) {
    if (FindInvalidUtf8(text) != std::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat("chat template: ", name, " is not valid UTF-8"));
    }
  }
  absl::StatusOr<jinja::Template> parsed = jinja::Template::Parse(source, limits);
  if (!parsed.ok()) return parsed.status();
  return ChatTemplate(*std::move(parsed), special_tokens);
}

absl::StatusOr<std::vector<Segment>> ChatTemplate::Render(const std::vector<ChatMessage>& messages,
                                                          const ChatRenderOptions& options) const {
  absl::StatusOr<jinja::Value> list = MessageList(messages);
  if (!list.ok()) return list.status();
  jinja::Map variables;
  SetConstant(variables, "messages", *std::move(list));
  SetConstant(variables, "add_generation_prompt", jinja::Value(options.add_generation_prompt));
  for (const auto& [name, text] : special_tokens_)
    SetConstant(variables, name, jinja::Value::FromTemplate(text));
  SetConstant(variables, "tools", jinja::Value(jinja::None{}));
  SetConstant(variables, "documents", jinja::Value(jinja::None{}));
  for (const auto& [name, value] : options.switches)
    variables.Set(jinja::Text(name, true), jinja::Value(value));
  absl::StatusOr<jinja::Text> text =
      template_.Render(std::move(variables), {.now_unix_seconds = options.now_unix_seconds});
  if (!text.ok()) return text.status();
  std::vector<Segment> segments;
  size_t begin = 0;
  for (const jinja::Text::Run& run : text->runs()) {
    segments.push_back({text->bytes().substr(begin, run.end - begin), run.from_template});
    begin = run.end;
  }
  return segments;
}

absl::StatusOr<std::string> ChatTemplateSource(std::string_view chat_template_jinja,
                                               std::string_view tokenizer_config_json) {
  if (!chat_template_jinja.empty()) return std::string(chat_template_jinja);
  if (tokenizer_config_json.empty()) return std::string();
  const nlohmann::json config =
      nlohmann::json::parse(tokenizer_config_json, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) return absl::InvalidArgumentError("tokenizer_config.json: not a JSON object");
  const auto field = config.find("chat_template");
  if (field == config.end() || field->is_null()) return std::string();
  if (field->is_string()) return field->get<std::string>();
  if (!field->is_array()) {
    return absl::InvalidArgumentError("tokenizer_config.json: chat_template: a string or a list is expected");
  }
  const nlohmann::json* chosen = nullptr;
  for (const nlohmann::json& entry : *field) {
    const bool usable = entry.is_object() && entry.contains("name") && entry["name"].is_string() &&
                        entry.contains("template") && entry["template"].is_string();
    if (!usable) {
      return absl::InvalidArgumentError(
          "tokenizer_config.json: chat_template: entries need a name and a template");
    }
    if (chosen == nullptr || entry["name"] == "default") chosen = &entry["template"];
  }
  return chosen == nullptr ? std::string() : chosen->get<std::string>();
}

}  // namespace orrery
