// Filters of single values, and the look-up of all.

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "server/text/jinja/call.h"
#include "server/text/jinja/format.h"
#include "server/text/jinja/list_filters.h"

namespace orrery::jinja {
namespace {

// A text input, written out when it is something else.
Text InputText(Context& context, const Value& input) {
  return input.text() ? *input.text() : ToText(context, input);
}

template <const char* kHow>
Value CaseFilter(Context& context, const Value& input, Arguments& arguments) {
  return arguments.Done(context, kHow) ? ChangeCase(context, InputText(context, input), kHow) : Value();
}
constexpr char kUpper[] = "upper", kLower[] = "lower", kCapitalize[] = "capitalize";

Value Title(Context& context, const Value& input, Arguments& arguments) {
  return arguments.Done(context, "title") ? ChangeCase(context, InputText(context, input), "words") : Value();
}

Value Trim(Context& context, const Value& input, Arguments& arguments) {
  const Text text = InputText(context, input);
  return CallMethod(context, Value(text), "strip", arguments);
}

Value Length(Context& context, const Value& input, Arguments& arguments) {
  if (!arguments.Done(context, "length")) return Value();
  if (const Text* text = input.text()) {
    context.Bytes(text->size(), 0);
    return Value(static_cast<int64_t>(CountCodePoints(text->bytes())));
  }
  if (const List* list = input.list()) return Value(static_cast<int64_t>(list->items.size()));
  if (const Map* map = input.map()) return Value(static_cast<int64_t>(map->items.size()));
  if (!input.is_undefined()) context.Fail(input.type_name(), " has no length");
  return Value(int64_t{0});
}

Value Default(Context& context, const Value& input, Arguments& arguments) {
  const Value* fallback = arguments.Get(0, "default_value");
  const bool falsy_too = arguments.GetBool(1, "boolean", false);
  if (!arguments.Done(context, "default")) return Value();
  if (!(input.is_undefined() || (falsy_too && !input.Truthy()))) return input;
  return fallback == nullptr ? Value::FromTemplate("") : *fallback;
}

Value ToJsonFilter(Context& context, const Value& input, Arguments& arguments) {
  JsonStyle style;
  arguments.Get(0, "ensure_ascii");
  if (arguments.GetBool(0, "ensure_ascii", false)) context.Fail("tojson(ensure_ascii=true) is not supported");
  const int64_t indent = arguments.GetInt(context, 1, "indent", -1);
  const Value* separators = arguments.Get(2, "separators");
  style.sort_keys = arguments.GetBool(3, "sort_keys", false);
  if (indent > 64) context.Fail("tojson: an indent above 64");
  style.indent = static_cast<int>(std::clamp<int64_t>(indent, -1, 64));
  if (separators != nullptr && separators->list() && separators->list()->items.size() == 2) {
    style.item_separator = ToText(context, separators->list()->items[0]);
    style.key_separator = ToText(context, separators->list()->items[1]);
  }
  return arguments.Done(context, "tojson") ? Value(ToJson(context, input, style)) : Value();
}

Value String(Context& context, const Value& input, Arguments& arguments) {
  return arguments.Done(context, "string") ? Value(InputText(context, input)) : Value();
}

Value Int(Context& context, const Value& input, Arguments& arguments) {
  const int64_t fallback = arguments.GetInt(context, 0, "default", 0);
  if (!arguments.Done(context, "int")) return Value();
  if (input.is_integral()) return Value(input.integer());
  double number = 0;
  int64_t whole = 0;
  if (input.is_float()) {
    number = input.number();
  } else if (input.text() != nullptr) {
    if (!context.Bytes(input.text()->size(), 0)) return Value();
    if (absl::SimpleAtoi(input.text()->bytes(), &whole)) return Value(whole);
    if (!absl::SimpleAtod(input.text()->bytes(), &number)) return Value(fallback);
  } else {
    return Value(fallback);
  }
  const bool fits = number > -9.2e18 && number < 9.2e18;  // false for a NaN
  return Value(fits ? static_cast<int64_t>(number) : fallback);
}

Value Float(Context& context, const Value& input, Arguments& arguments) {
  const Value* fallback = arguments.Get(0, "default");
  if (!arguments.Done(context, "float")) return Value();
  double number = 0;
  if (input.is_number()) return Value(input.number());
  if (input.text() && context.Bytes(input.text()->size(), 0) &&
      absl::SimpleAtod(input.text()->bytes(), &number)) {
    return Value(number);
  }
  return fallback != nullptr && fallback->is_number() ? Value(fallback->number()) : Value(0.0);
}

Value Abs(Context& context, const Value& input, Arguments& arguments) {
  if (!arguments.Done(context, "abs")) return Value();
  if (input.is_float()) return Value(std::fabs(input.number()));
  if (!input.is_integral() || input.integer() == std::numeric_limits<int64_t>::min()) {
    return context.Fail("abs of ", input.type_name()), Value();
  }
  return Value(std::abs(input.integer()));
}

Value Round(Context& context, const Value& input, Arguments& arguments) {
  const int64_t digits = arguments.GetInt(context, 0, "precision", 0);
  const Text* method = arguments.GetText(context, 1, "method");
  if (!arguments.Done(context, "round")) return Value();
  if (!input.is_number() || digits < 0 || digits > 15)
    return context.Fail("round() of ", input.type_name()), Value();
  if (input.is_integral() && (method == nullptr || method->bytes() == "common"))
    return Value(input.integer());
  const double scale = std::pow(10.0, static_cast<double>(digits));
  const double scaled = input.number() * scale;
  if (method != nullptr && method->bytes() == "ceil") return Value(std::ceil(scaled) / scale);
  if (method != nullptr && method->bytes() == "floor") return Value(std::floor(scaled) / scale);
  return Value(std::nearbyint(scaled) / scale);
}

Value Replace(Context& context, const Value& input, Arguments& arguments) {
  const Text text = InputText(context, input);
  return CallMethod(context, Value(text), "replace", arguments);
}

Value Indent(Context& context, const Value& input, Arguments& arguments) {
  const Value* width = arguments.Get(0, "width");
  const bool first = arguments.GetBool(1, "first", false);
  const bool blank = arguments.GetBool(2, "blank", false);
  if (!arguments.Done(context, "indent")) return Value();
  Text margin(std::string(4, ' '), true);
  if (width != nullptr && width->text()) {
    margin = *width->text();
  } else if (width != nullptr) {
    if (!width->is_integral() || width->integer() < 0 || width->integer() > 1000)
      return context.Fail("indent(): bad width"), Value();
    margin = Text(std::string(static_cast<size_t>(width->integer()), ' '), true);
  }
  const Text text = InputText(context, input);
  TextBuilder out(context);
  for (size_t begin = 0; context.Step();) {
    const size_t found = text.bytes().find('\n', begin);
    const size_t end = found == std::string::npos ? text.size() : found + 1;
    const bool empty = end == begin || text.bytes()[begin] == '\n';
    if (begin == 0 ? first : (!empty || blank)) out.Append(margin);
    out.AppendPart(text, begin, end);
    if (found == std::string::npos) break;
    begin = end;
  }
  return Value(out.Take());
}

Value Escape(Context& context, const Value& input, Arguments& arguments) {
  if (!arguments.Done(context, "escape")) return Value();
  const Text text = InputText(context, input);
  TextBuilder out(context);
  for (size_t at = 0; at < text.size() && context.ok(); ++at) {
    const char c = text.bytes()[at];
    const std::string_view name = c == '&'    ? "&amp;"
                                  : c == '<'  ? "&lt;"
                                  : c == '>'  ? "&gt;"
                                  : c == '\'' ? "&#39;"
                                              : "&#34;";
    const bool special = c == '&' || c == '<' || c == '>' || c == '\'' || c == '"';
    out.Append(special ? name : std::string_view(&c, 1), text.from_template_at(at));
  }
  return Value(out.Take());
}

Value Same(Context& context, const Value& input, Arguments& arguments) {
  return arguments.Done(context, "safe") ? input : Value();
}

Value Attr(Context& context, const Value& input, Arguments& arguments) {
  const Text* name = arguments.GetText(context, 0, "name");
  if (!arguments.Done(context, "attr") || name == nullptr) return Value();
  return GetAttribute(context, input, name->bytes());
}

constexpr std::pair<std::string_view, Function> kFilters[] = {
    {"abs", Abs},
    {"attr", Attr},
    {"capitalize", CaseFilter<kCapitalize>},
    {"count", Length},
    {"d", Default},
    {"default", Default},
    {"e", Escape},
    {"escape", Escape},
    {"float", Float},
    {"indent", Indent},
    {"int", Int},
    {"length", Length},
    {"lower", CaseFilter<kLower>},
    {"replace", Replace},
    {"round", Round},
    {"safe", Same},
    {"string", String},
    {"title", Title},
    {"tojson", ToJsonFilter},
    {"trim", Trim},
    {"upper", CaseFilter<kUpper>},
};

}  // namespace

Function FindFilter(std::string_view name) {
  for (const auto& [known, function] : kFilters) {
    if (known == name) return function;
  }
  return FindListFilter(name);
}

}  // namespace orrery::jinja
