#ifndef ORRERY_SERVER_TEXT_CHAT_TEMPLATE_H_
#define ORRERY_SERVER_TEXT_CHAT_TEMPLATE_H_

// A model's chat template: messages in, the prompt's text out, cut into segments by who wrote them. Only a
// segment that the template wrote may contain special tokens; in the others their names are plain text. So
// nothing that a client sends can open or close a turn.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/text/jinja/template.h"

namespace orrery {

struct ChatMessage {
  std::string role;
  std::string content;
};

// Neighbouring segments differ in from_template; none is empty.
struct Segment {
  std::string text;
  bool from_template = false;
};

struct ChatRenderOptions {
  bool add_generation_prompt = true;
  int64_t now_unix_seconds = 0;  // for templates that write the date (UTC)
  std::vector<std::pair<std::string, bool>>
      switches{};  // such as enable_thinking; seen by the template as booleans
};

class ChatTemplate {
 public:
  // `special_tokens` are variables of the template: bos_token and so on (Tokenizer::role_texts). The source
  // is checked whole; see jinja/template.h for errors and limits.
  static absl::StatusOr<ChatTemplate> Parse(std::string_view source,
                                            const std::map<std::string, std::string>& special_tokens,
                                            const jinja::Limits& limits = {});

  // INVALID_ARGUMENT when a message is not valid UTF-8 (naming messages[i].content) or the template refuses
  // the messages; RESOURCE_EXHAUSTED beyond a limit. Thread-safe.
  absl::StatusOr<std::vector<Segment>> Render(const std::vector<ChatMessage>& messages,
                                              const ChatRenderOptions& options = {}) const;

 private:
  ChatTemplate(jinja::Template source, const std::map<std::string, std::string>& special_tokens)
      : template_(std::move(source)), special_tokens_(special_tokens) {}

  jinja::Template template_;
  std::map<std::string, std::string> special_tokens_;
};

// The source of the template from the texts of a model folder's files, empty where a file is absent: that of
// chat_template.jinja if there is one, otherwise `chat_template` of tokenizer_config.json, a string or a list
// of {name, template} of which "default" is taken (the first without one). Empty when the model has none.
absl::StatusOr<std::string> ChatTemplateSource(std::string_view chat_template_jinja,
                                               std::string_view tokenizer_config_json);

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_CHAT_TEMPLATE_H_
