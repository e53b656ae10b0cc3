#ifndef ORRERY_SERVER_TEXT_JINJA_FORMAT_H_
#define ORRERY_SERVER_TEXT_JINJA_FORMAT_H_

// Values as text, the way Python writes them, and the only door through which long texts are made.

#include <cstdint>
#include <string>
#include <string_view>

#include "server/text/jinja/context.h"
#include "server/text/jinja/text.h"
#include "server/text/jinja/value.h"

namespace orrery::jinja {

// Builds a text and charges every byte; stops growing once the context has failed.
class TextBuilder {
 public:
  explicit TextBuilder(Context& context) : context_(context) {}

  void Append(std::string_view bytes, bool from_template) {
    if (context_.Bytes(bytes.size(), text_.size() + bytes.size())) text_.Append(bytes, from_template);
  }
  void Append(const Text& text) { AppendPart(text, 0, text.size()); }
  void AppendPart(const Text& text, size_t begin, size_t end) {
    if (context_.Bytes(end - begin, text_.size() + end - begin)) text_.AppendPart(text, begin, end);
  }
  // What str(value) gives.
  void AppendValue(const Value& value);

  size_t size() const { return text_.size(); }
  Text Take() { return std::move(text_); }

 private:
  Context& context_;
  Text text_;
};

// str(value): a text as it is, everything else as Python prints it.
Text ToText(Context& context, const Value& value);

struct JsonStyle {
  int indent = -1;  // -1: on one line
  bool sort_keys = false;
  Text item_separator;  // filled with Python's when empty
  Text key_separator;
};

// json.dumps(value, ensure_ascii=False, ...).
Text ToJson(Context& context, const Value& value, const JsonStyle& style);

}  // namespace orrery::jinja

#endif  // ORRERY_SERVER_TEXT_JINJA_FORMAT_H_
