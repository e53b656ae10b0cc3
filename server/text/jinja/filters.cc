#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "server/text/jinja/call.h"
#include "server/text/jinja/format.h"

namespace orrery::jinja {
namespace {

using Items = std::vector<Value>;

// A text input, written out when it is something else.
Text InputText(Context& context, const Value& input) {
  return input.text() ? *input.text() : ToText(context, input);
}

template <const char* kHow>
Value CaseFilter(Context& context, const Value& input, Arguments& arguments) {
  return arguments.Done(context, kHow) ? ChangeCase(context, InputText(context, input), kHow) : Value();
}
constexpr char kUpper[] = "upper", kLower[] = "lower", kTitle[] = "title", kCapitalize[] = "capitalize";

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

Value Join(Context& context, const Value& input, Arguments& arguments) {
  const Value* separator = arguments.Get(0, "d");
  const Text* path = arguments.GetText(context, 1, "attribute");
  if (!arguments.Done(context, "join")) return Value();
  const auto items = Elements(context, input);
  const Text between = separator == nullptr ? Text() : ToText(context, *separator);
  if (path == nullptr) return JoinTexts(context, *items, between);
  List picked;
  for (const Value& item : items->items) picked.items.push_back(GetPath(context, item, path->bytes()));
  return JoinTexts(context, picked, between);
}

Value First(Context& context, const Value& input, Arguments& arguments) {
  if (!arguments.Done(context, "first")) return Value();
  if (input.text()) return GetItem(context, input, Value(int64_t{0}));
  const auto items = Elements(context, input);
  return items->items.empty() ? Value() : items->items.front();
}

Value Last(Context& context, const Value& input, Arguments& arguments) {
  if (!arguments.Done(context, "last")) return Value();
  const auto items = Elements(context, input);
  return items->items.empty() ? Value() : items->items.back();
}

Value ListFilter(Context& context, const Value& input, Arguments& arguments) {
  if (!arguments.Done(context, "list")) return Value();
  return MakeList(context, Elements(context, input)->items);
}

Value Reverse(Context& context, const Value& input, Arguments& arguments) {
  if (!arguments.Done(context, "reverse")) return Value();
  Items items = Elements(context, input)->items;
  std::reverse(items.begin(), items.end());
  if (!input.text()) return MakeList(context, std::move(items));
  return JoinTexts(context, List{std::move(items)}, Text());
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

// The test of select and its relatives: name and arguments after `skip` positional ones; truth without a
// name.
class Selector {
 public:
  Selector(Context& context, Arguments& arguments, size_t skip) : context_(context) {
    if (!arguments.named.empty()) context.Fail("named arguments are not supported here");
    const auto& given = arguments.positional;
    if (given.size() <= skip) return;
    function_ = given[skip].text() == nullptr ? nullptr : FindTest(given[skip].text()->bytes());
    if (function_ == nullptr) context.Fail("no such test");
    rest_.assign(given.begin() + static_cast<ptrdiff_t>(skip) + 1, given.end());
  }

  bool Matches(const Value& value) {
    if (function_ == nullptr) return value.Truthy();
    Arguments arguments;
    arguments.positional = rest_;
    return function_(context_, value, arguments).Truthy();
  }

 private:
  Context& context_;
  Function function_ = nullptr;
  Items rest_;
};

Value Select(Context& context, const Value& input, Arguments& arguments, bool by_attribute, bool wanted) {
  const Text* path = by_attribute ? arguments.GetText(context, 0, "attribute") : nullptr;
  if (by_attribute && path == nullptr) context.Fail("selectattr() needs an attribute");
  Selector selector(context, arguments, by_attribute ? 1 : 0);
  if (!context.ok()) return Value();
  Items picked;
  for (const Value& item : Elements(context, input)->items) {
    if (!context.Step()) return Value();
    if (selector.Matches(by_attribute ? GetPath(context, item, path->bytes()) : item) == wanted)
      picked.push_back(item);
  }
  return MakeList(context, std::move(picked));
}

Value MapFilter(Context& context, const Value& input, Arguments& arguments) {
  DepthGuard guard(context, context.limits().render_depth);  // the filter may be map again
  if (!context.ok()) return Value();
  Items results;
  const auto items = Elements(context, input);
  if (arguments.positional.empty()) {
    const Text* path = arguments.GetText(context, 9, "attribute");
    const Value* fallback = arguments.Get(9, "default");
    if (path == nullptr) context.Fail("map() needs a filter or an attribute");
    if (!context.ok()) return Value();
    for (const Value& item : items->items) {
      const Value value = GetPath(context, item, path->bytes());
      results.push_back(value.is_undefined() && fallback != nullptr ? *fallback : value);
    }
    return MakeList(context, std::move(results));
  }
  const Text* name = arguments.GetText(context, 0, "filter");
  const Function filter = name == nullptr ? nullptr : FindFilter(name->bytes());
  if (filter == nullptr) return context.Fail("map(): no such filter"), Value();
  for (const Value& item : items->items) {
    if (!context.Step()) return Value();
    Arguments rest;
    rest.positional.assign(arguments.positional.begin() + 1, arguments.positional.end());
    rest.named = arguments.named;
    results.push_back(filter(context, item, rest));
  }
  return MakeList(context, std::move(results));
}

// A stable order by a key; a merge sort, so that an order that contradicts itself does no harm.
void SortBy(Context& context, Items& items, const std::string* path, bool case_sensitive, bool descending) {
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : items)
    keyed.emplace_back(path == nullptr ? item : GetPath(context, item, *path), item);
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    if (!context.ok()) return false;
    return descending ? Less(context, b.first, a.first, case_sensitive)
                      : Less(context, a.first, b.first, case_sensitive);
  });
  for (size_t i = 0; i < items.size(); ++i) items[i] = keyed[i].second;
}

Value Sort(Context& context, const Value& input, Arguments& arguments) {
  const bool descending = arguments.GetBool(0, "reverse", false);
  const bool case_sensitive = arguments.GetBool(1, "case_sensitive", false);
  const Text* path = arguments.GetText(context, 2, "attribute");
  if (!arguments.Done(context, "sort")) return Value();
  Items items = Elements(context, input)->items;
  SortBy(context, items, path == nullptr ? nullptr : &path->bytes(), case_sensitive, descending);
  return MakeList(context, std::move(items));
}

Value ItemsOf(Context& context, const Value& input) {
  if (input.is_undefined()) return MakeList(context, {});
  Arguments none;
  return CallMethod(context, input, "items", none);
}

Value ItemsFilter(Context& context, const Value& input, Arguments& arguments) {
  return arguments.Done(context, "items") ? ItemsOf(context, input) : Value();
}

Value DictSort(Context& context, const Value& input, Arguments& arguments) {
  const bool case_sensitive = arguments.GetBool(0, "case_sensitive", false);
  const Text* by = arguments.GetText(context, 1, "by");
  const bool descending = arguments.GetBool(2, "reverse", false);
  if (!arguments.Done(context, "dictsort")) return Value();
  const Value pairs = ItemsOf(context, input);
  if (!context.ok()) return Value();
  Items items = pairs.list()->items;
  const std::string path = by != nullptr && by->bytes() == "value" ? "1" : "0";
  SortBy(context, items, &path, case_sensitive, descending);
  return MakeList(context, std::move(items));
}

Value Unique(Context& context, const Value& input, Arguments& arguments) {
  if (!arguments.Done(context, "unique")) return Value();
  Items kept;
  for (const Value& item : Elements(context, input)->items) {
    const bool seen =
        std::any_of(kept.begin(), kept.end(), [&](const Value& v) { return Equal(context, v, item); });
    if (!context.ok()) return Value();
    if (!seen) kept.push_back(item);
  }
  return MakeList(context, std::move(kept));
}

Value Extreme(Context& context, const Value& input, Arguments& arguments, bool largest) {
  const Text* path = arguments.GetText(context, 9, "attribute");
  if (!arguments.Done(context, "min")) return Value();
  Items items = Elements(context, input)->items;
  SortBy(context, items, path == nullptr ? nullptr : &path->bytes(), false, largest);
  return items.empty() ? Value() : items.front();
}

Value Sum(Context& context, const Value& input, Arguments& arguments) {
  const Text* path = arguments.GetText(context, 0, "attribute");
  const Value* start = arguments.Get(1, "start");
  if (!arguments.Done(context, "sum")) return Value();
  Value total = start == nullptr ? Value(int64_t{0}) : *start;
  for (const Value& item : Elements(context, input)->items) {
    total = Arithmetic(context, "+", total, path == nullptr ? item : GetPath(context, item, path->bytes()));
    if (!context.ok()) return Value();
  }
  return total;
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
    {"dictsort", DictSort},
    {"e", Escape},
    {"escape", Escape},
    {"first", First},
    {"float", Float},
    {"indent", Indent},
    {"int", Int},
    {"items", ItemsFilter},
    {"join", Join},
    {"last", Last},
    {"length", Length},
    {"list", ListFilter},
    {"lower", CaseFilter<kLower>},
    {"map", MapFilter},
    {"max", [](Context& c, const Value& v, Arguments& a) { return Extreme(c, v, a, true); }},
    {"min", [](Context& c, const Value& v, Arguments& a) { return Extreme(c, v, a, false); }},
    {"reject", [](Context& c, const Value& v, Arguments& a) { return Select(c, v, a, false, false); }},
    {"rejectattr", [](Context& c, const Value& v, Arguments& a) { return Select(c, v, a, true, false); }},
    {"replace", Replace},
    {"reverse", Reverse},
    {"round", Round},
    {"safe", Same},
    {"select", [](Context& c, const Value& v, Arguments& a) { return Select(c, v, a, false, true); }},
    {"selectattr", [](Context& c, const Value& v, Arguments& a) { return Select(c, v, a, true, true); }},
    {"sort", Sort},
    {"string", String},
    {"sum", Sum},
    {"title", CaseFilter<kTitle>},
    {"tojson", ToJsonFilter},
    {"trim", Trim},
    {"unique", Unique},
    {"upper", CaseFilter<kUpper>},
};

}  // namespace

Function FindFilter(std::string_view name) {
  for (const auto& [known, function] : kFilters) {
    if (known == name) return function;
  }
  return nullptr;
}

}  // namespace orrery::jinja
