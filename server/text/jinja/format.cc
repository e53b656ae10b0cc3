#include "server/text/jinja/format.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "server/text/utf8.h"

namespace orrery::jinja {
namespace {

// The shortest digits that read back as the same number, in Python's form.
std::string FloatText(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  const double size = std::fabs(value);
  const bool fixed = size == 0 || (size >= 1e-4 && size < 1e16);
  char buffer[64];
  const auto result = std::to_chars(buffer, buffer + sizeof(buffer), value,
                                    fixed ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(buffer, result.ptr);
  if (fixed && text.find('.') == std::string::npos) text += ".0";
  return text;
}

void AppendQuoted(TextBuilder& out, const Text& text, bool json) {
  const std::string& bytes = text.bytes();
  const bool single =
      !json && (bytes.find('\'') == std::string::npos || bytes.find('"') != std::string::npos);
  const char quote = single ? '\'' : '"';
  const std::string_view mark(&quote, 1);
  out.Append(mark, true);
  size_t copied = 0;
  for (size_t at = 0; at < bytes.size(); ++at) {
    const unsigned char c = static_cast<unsigned char>(bytes[at]);
    std::string escape;
    if (c == static_cast<unsigned char>(quote) || c == '\\') {
      escape = {'\\', static_cast<char>(c)};
    } else if (c == '\n' || c == '\r' || c == '\t') {
      escape = {'\\', c == '\n' ? 'n' : c == '\r' ? 'r' : 't'};
    } else if (json && (c == '\b' || c == '\f')) {
      escape = {'\\', c == '\b' ? 'b' : 'f'};
    } else if (c < 0x20 || (!json && c == 0x7F)) {
      escape = json ? absl::StrFormat("\\u%04x", c) : absl::StrFormat("\\x%02x", c);
    } else {
      continue;
    }
    out.AppendPart(text, copied, at);
    out.Append(escape, text.from_template_at(at));
    copied = at + 1;
  }
  out.AppendPart(text, copied, bytes.size());
  out.Append(mark, true);
}

void AppendNumber(TextBuilder& out, const Value& value, bool json) {
  if (value.is_bool()) {
    out.Append(value.boolean() ? (json ? "true" : "True") : (json ? "false" : "False"), true);
  } else if (value.is_int()) {
    out.Append(std::to_string(value.integer()), true);
  } else {
    const double number = value.number();
    if (json && std::isnan(number)) return out.Append("NaN", true);
    if (json && std::isinf(number)) return out.Append(number < 0 ? "-Infinity" : "Infinity", true);
    out.Append(FloatText(number), true);
  }
}

// Depth of recursion is bounded by Limits::value_depth.
void AppendRepr(TextBuilder& out, Context& context, const Value& value) {
  if (!context.Step()) return;
  if (const Text* text = value.text()) return AppendQuoted(out, *text, false);
  if (const List* list = value.list()) {
    out.Append(list->tuple ? "(" : "[", true);
    for (size_t i = 0; i < list->items.size() && context.ok(); ++i) {
      if (i > 0) out.Append(", ", true);
      AppendRepr(out, context, list->items[i]);
    }
    if (list->tuple && list->items.size() == 1) out.Append(",", true);
    return out.Append(list->tuple ? ")" : "]", true);
  }
  if (const Map* map = value.map()) {
    out.Append("{", true);
    for (size_t i = 0; i < map->items.size() && context.ok(); ++i) {
      if (i > 0) out.Append(", ", true);
      AppendQuoted(out, map->items[i].first, false);
      out.Append(": ", true);
      AppendRepr(out, context, map->items[i].second);
    }
    return out.Append("}", true);
  }
  if (value.is_undefined()) return out.Append("Undefined", true);
  out.AppendValue(value);
}

class JsonWriter {
 public:
  JsonWriter(Context& context, const JsonStyle& style) : context_(context), style_(style), out_(context) {
    if (style_.item_separator.empty()) style_.item_separator = Text(style.indent < 0 ? ", " : ",", true);
    if (style_.key_separator.empty()) style_.key_separator = Text(": ", true);
  }

  Text Take() { return out_.Take(); }

  void Write(const Value& value, int level) {
    if (!context_.Step()) return;
    if (const Text* text = value.text()) return AppendQuoted(out_, *text, true);
    if (value.is_none()) return out_.Append("null", true);
    if (value.is_number()) return AppendNumber(out_, value, true);
    if (const List* list = value.list()) return WriteList(*list, level);
    if (const Map* map = value.map()) return WriteMap(*map, level);
    context_.Fail("tojson cannot write ", value.type_name());
  }

 private:
  void WriteList(const List& list, int level) {
    if (list.items.empty()) return out_.Append("[]", true);
    out_.Append("[", true);
    for (size_t i = 0; i < list.items.size() && context_.ok(); ++i) {
      Separate(i, level + 1);
      Write(list.items[i], level + 1);
    }
    NewLine(level);
    out_.Append("]", true);
  }

  void WriteMap(const Map& map, int level) {
    if (map.items.empty()) return out_.Append("{}", true);
    std::vector<const std::pair<Text, Value>*> items;
    for (const auto& item : map.items) items.push_back(&item);
    if (style_.sort_keys) {
      std::stable_sort(items.begin(), items.end(),
                       [](const auto* a, const auto* b) { return a->first.bytes() < b->first.bytes(); });
    }
    out_.Append("{", true);
    for (size_t i = 0; i < items.size() && context_.ok(); ++i) {
      Separate(i, level + 1);
      AppendQuoted(out_, items[i]->first, true);
      out_.Append(style_.key_separator);
      Write(items[i]->second, level + 1);
    }
    NewLine(level);
    out_.Append("}", true);
  }

  void Separate(size_t index, int level) {
    if (index > 0) out_.Append(style_.item_separator);
    NewLine(level);
  }

  void NewLine(int level) {
    if (style_.indent < 0) return;
    out_.Append("\n", true);
    out_.Append(std::string(static_cast<size_t>(style_.indent) * static_cast<size_t>(level), ' '), true);
  }

  Context& context_;
  JsonStyle style_;
  TextBuilder out_;
};

}  // namespace

void TextBuilder::AppendValue(const Value& value) {
  if (const Text* text = value.text()) return Append(*text);
  if (value.is_undefined()) return;
  if (value.is_none()) return Append("None", true);
  if (value.is_number()) return AppendNumber(*this, value, false);
  if (value.list() || value.map()) return AppendRepr(*this, context_, value);
  context_.Fail("a ", value.type_name(), " cannot be printed");
}

Text ToText(Context& context, const Value& value) {
  TextBuilder out(context);
  out.AppendValue(value);
  return out.Take();
}

Text ToJson(Context& context, const Value& value, const JsonStyle& style) {
  JsonWriter writer(context, style);
  writer.Write(value, 0);
  return writer.Take();
}

}  // namespace orrery::jinja
