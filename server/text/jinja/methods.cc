// Methods of texts, maps and loops, and the text functions that filters share.

#include <algorithm>
#include <array>
#include <utility>

#include "server/text/jinja/call.h"
#include "server/text/jinja/format.h"
#include "server/text/utf8.h"
#include "utf8proc.h"

namespace orrery::jinja {
namespace {

using Method = Value (*)(Context&, const Text&, Arguments&);

Value StripMethod(Context& context, const Text& text, Arguments& arguments, bool left, bool right) {
  const Value* characters = arguments.Get(0, "chars");
  const bool given = characters != nullptr && !characters->is_none();
  if (given && characters->text() == nullptr) context.Fail("strip() needs a string");
  if (!arguments.Done(context, "strip") || !context.Bytes(text.size(), 0)) return Value();
  // Every character of the text may be looked up in the set, so a long set is charged like one.
  if (given && !context.Step(text.size() / 64 * (characters->text()->size() / 64 + 1))) return Value();
  return Value(Strip(text, given ? &characters->text()->bytes() : nullptr, left, right));
}

// text.split(): at runs of white space; at most `limit` cuts (all when negative).
std::vector<Value> SplitSpaces(Context& context, const Text& text, int64_t limit) {
  std::vector<Value> parts;
  const std::string& bytes = text.bytes();
  size_t at = 0;
  const auto space_at = [&](size_t i) { return IsSpace(DecodeValidUtf8(bytes.data() + i).value); };
  while (context.Step()) {
    while (at < bytes.size() && space_at(at)) at += DecodeValidUtf8(bytes.data() + at).length;
    if (at >= bytes.size()) break;
    if (limit >= 0 && static_cast<int64_t>(parts.size()) >= limit) {
      parts.push_back(Value(text.Part(at, bytes.size())));
      break;
    }
    size_t end = at;
    while (end < bytes.size() && !space_at(end)) end += DecodeValidUtf8(bytes.data() + end).length;
    parts.push_back(Value(text.Part(at, end)));
    at = end;
  }
  return parts;
}

std::vector<Value> SplitAt(Context& context, const Text& text, const std::string& separator, int64_t limit,
                           bool from_right) {
  std::vector<Value> parts;
  const std::string& bytes = text.bytes();
  size_t begin = 0, end = bytes.size();
  while (context.Step() && (limit < 0 || static_cast<int64_t>(parts.size()) < limit)) {
    if (from_right) {
      const size_t found =
          end < separator.size() ? std::string::npos : bytes.rfind(separator, end - separator.size());
      if (found == std::string::npos) break;
      parts.push_back(Value(text.Part(found + separator.size(), end)));
      end = found;
    } else {
      const size_t found = bytes.find(separator, begin);
      if (found == std::string::npos) break;
      parts.push_back(Value(text.Part(begin, found)));
      begin = found + separator.size();
    }
  }
  parts.push_back(Value(text.Part(begin, end)));
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

Value Split(Context& context, const Text& text, Arguments& arguments, bool from_right) {
  const Value* separator = arguments.Get(0, "sep");
  const int64_t limit = arguments.GetInt(context, 1, "maxsplit", -1);
  if (!arguments.Done(context, "split") || !context.Bytes(2 * text.size(), 0)) return Value();
  if (separator == nullptr || separator->is_none()) {
    if (from_right && limit >= 0) return context.Fail("rsplit() with a limit needs a separator"), Value();
    return MakeList(context, SplitSpaces(context, text, limit));
  }
  if (separator->text() == nullptr || separator->text()->empty())
    return context.Fail("split() needs a separator"), Value();
  if (!ChargeSearch(context, text, *separator->text())) return Value();
  return MakeList(context, SplitAt(context, text, separator->text()->bytes(), limit, from_right));
}

Value SplitLines(Context& context, const Text& text, Arguments& arguments) {
  const bool keep = arguments.GetBool(0, "keepends", false);
  if (!arguments.Done(context, "splitlines") || !context.Bytes(2 * text.size(), 0)) return Value();
  std::vector<Value> lines;
  const std::string& bytes = text.bytes();
  for (size_t begin = 0; begin < bytes.size() && context.Step();) {
    size_t end = begin, next = bytes.size();
    for (; end < bytes.size(); end += DecodeValidUtf8(bytes.data() + end).length) {
      const CodePoint c = DecodeValidUtf8(bytes.data() + end);
      const bool breaks = (c.value >= 0x0A && c.value <= 0x0D) || (c.value >= 0x1C && c.value <= 0x1E) ||
                          c.value == 0x85 || c.value == 0x2028 || c.value == 0x2029;
      if (!breaks) continue;
      next = end + c.length + (c.value == '\r' && end + 1 < bytes.size() && bytes[end + 1] == '\n' ? 1 : 0);
      break;
    }
    lines.push_back(Value(text.Part(begin, keep ? next : std::min(end, bytes.size()))));
    begin = next;
  }
  return MakeList(context, std::move(lines));
}

// Whether the text begins (ends) with the argument, or with one of a tuple of them.
Value HasAffix(Context& context, const Text& text, Arguments& arguments, bool at_end) {
  const Value* affix = arguments.Get(0, "prefix");
  if (!arguments.Done(context, at_end ? "endswith" : "startswith")) return Value();
  const std::string_view bytes = text.bytes();
  const auto matches = [&](const Value& value) {
    if (value.text() == nullptr) return context.Fail("startswith() needs a string"), false;
    const std::string_view part = value.text()->bytes();
    if (!context.Bytes(part.size(), 0) || part.size() > bytes.size()) return false;
    return (at_end ? bytes.substr(bytes.size() - part.size()) : bytes.substr(0, part.size())) == part;
  };
  if (affix == nullptr) return context.Fail("startswith() needs a string"), Value();
  if (affix->list() == nullptr) return Value(matches(*affix));
  return Value(std::any_of(affix->list()->items.begin(), affix->list()->items.end(), matches));
}

Value RemoveAffix(Context& context, const Text& text, Arguments& arguments, bool at_end) {
  const Text* affix = arguments.GetText(context, 0, "prefix");
  if (!arguments.Done(context, "removeprefix") || affix == nullptr || !context.Bytes(text.size(), 0))
    return Value();
  const size_t size = affix->size();
  if (size > text.size()) return Value(text);
  if (!at_end && text.bytes().compare(0, size, affix->bytes()) == 0)
    return Value(text.Part(size, text.size()));
  if (at_end && text.bytes().compare(text.size() - size, size, affix->bytes()) == 0) {
    return Value(text.Part(0, text.size() - size));
  }
  return Value(text);
}

Value Find(Context& context, const Text& text, Arguments& arguments, bool from_right) {
  const Text* part = arguments.GetText(context, 0, "sub");
  if (!arguments.Done(context, "find") || part == nullptr || !ChargeSearch(context, text, *part))
    return Value();
  const size_t at = from_right ? text.bytes().rfind(part->bytes()) : text.bytes().find(part->bytes());
  if (at == std::string::npos) return Value(int64_t{-1});
  return Value(static_cast<int64_t>(CountCodePoints(std::string_view(text.bytes()).substr(0, at))));
}

Value Count(Context& context, const Text& text, Arguments& arguments) {
  const Text* part = arguments.GetText(context, 0, "sub");
  if (!arguments.Done(context, "count") || part == nullptr || !ChargeSearch(context, text, *part))
    return Value();
  if (part->empty()) return Value(static_cast<int64_t>(CountCodePoints(text.bytes())) + 1);
  int64_t count = 0;
  for (size_t at = text.bytes().find(part->bytes()); at != std::string::npos;
       at = text.bytes().find(part->bytes(), at + part->size())) {
    ++count;
  }
  return Value(count);
}

// str.isalpha and its relatives: every character satisfies, and there is one.
Value All(Context& context, const Text& text, Arguments& arguments, bool (*satisfies)(uint32_t)) {
  if (!arguments.Done(context, "is...") || !context.Bytes(text.size(), 0)) return Value();
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = DecodeValidUtf8(text.bytes().data() + at);
    if (!satisfies(c.value)) return Value(false);
    at += c.length;
  }
  return Value(!text.empty());
}

bool IsAlpha(uint32_t c) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}
bool IsDigit(uint32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c)) == UTF8PROC_CATEGORY_ND;
}
bool IsAlnum(uint32_t c) {
  return IsAlpha(c) || IsDigit(c) ||
         utf8proc_category(static_cast<utf8proc_int32_t>(c)) == UTF8PROC_CATEGORY_NO;
}

template <const char* kHow>
Value Case(Context& context, const Text& text, Arguments& arguments) {
  return arguments.Done(context, kHow) ? ChangeCase(context, text, kHow) : Value();
}
constexpr char kUpper[] = "upper", kLower[] = "lower", kTitle[] = "title", kCapitalize[] = "capitalize";

Value ReplaceMethod(Context& context, const Text& text, Arguments& arguments) {
  const Text* from = arguments.GetText(context, 0, "old");
  const Text* to = arguments.GetText(context, 1, "new");
  const int64_t count = arguments.GetInt(context, 2, "count", -1);
  if (from == nullptr || to == nullptr) context.Fail("replace() needs two strings");
  return arguments.Done(context, "replace") ? ReplaceAll(context, text, *from, *to, count) : Value();
}

Value JoinMethod(Context& context, const Text& text, Arguments& arguments) {
  const Value* items = arguments.Get(0, "iterable");
  if (items == nullptr) context.Fail("join() needs a list");
  if (!arguments.Done(context, "join")) return Value();
  return JoinTexts(context, *Elements(context, *items), text);
}

constexpr std::pair<std::string_view, Method> kTextMethods[] = {
    {"strip", [](Context& c, const Text& t, Arguments& a) { return StripMethod(c, t, a, true, true); }},
    {"lstrip", [](Context& c, const Text& t, Arguments& a) { return StripMethod(c, t, a, true, false); }},
    {"rstrip", [](Context& c, const Text& t, Arguments& a) { return StripMethod(c, t, a, false, true); }},
    {"split", [](Context& c, const Text& t, Arguments& a) { return Split(c, t, a, false); }},
    {"rsplit", [](Context& c, const Text& t, Arguments& a) { return Split(c, t, a, true); }},
    {"splitlines", SplitLines},
    {"startswith", [](Context& c, const Text& t, Arguments& a) { return HasAffix(c, t, a, false); }},
    {"endswith", [](Context& c, const Text& t, Arguments& a) { return HasAffix(c, t, a, true); }},
    {"removeprefix", [](Context& c, const Text& t, Arguments& a) { return RemoveAffix(c, t, a, false); }},
    {"removesuffix", [](Context& c, const Text& t, Arguments& a) { return RemoveAffix(c, t, a, true); }},
    {"find", [](Context& c, const Text& t, Arguments& a) { return Find(c, t, a, false); }},
    {"rfind", [](Context& c, const Text& t, Arguments& a) { return Find(c, t, a, true); }},
    {"count", Count},
    {"replace", ReplaceMethod},
    {"join", JoinMethod},
    {"upper", Case<kUpper>},
    {"lower", Case<kLower>},
    {"title", Case<kTitle>},
    {"capitalize", Case<kCapitalize>},
    {"isalpha", [](Context& c, const Text& t, Arguments& a) { return All(c, t, a, IsAlpha); }},
    {"isdigit", [](Context& c, const Text& t, Arguments& a) { return All(c, t, a, IsDigit); }},
    {"isalnum", [](Context& c, const Text& t, Arguments& a) { return All(c, t, a, IsAlnum); }},
    {"isspace", [](Context& c, const Text& t, Arguments& a) { return All(c, t, a, IsSpace); }},
};

Value CallMapMethod(Context& context, const Map& map, std::string_view method, Arguments& arguments) {
  if (method == "get") {
    const Value* key = arguments.Get(0, "key");
    const Value* fallback = arguments.Get(1, "default");
    if (key == nullptr) context.Fail("get() needs a key");
    if (!arguments.Done(context, "get") || !context.Step(map.items.size())) return Value();
    const Value* found = key->text() == nullptr ? nullptr : map.Find(key->text()->bytes());
    return found != nullptr ? *found : fallback != nullptr ? *fallback : Value(None{});
  }
  std::vector<Value> parts;
  if (method != "items" && method != "keys" && method != "values") {
    return context.Fail("dict has no method '", method, "'"), Value();
  }
  if (!arguments.Done(context, method)) return Value();
  for (const auto& [key, value] : map.items) {
    if (method == "keys") {
      parts.push_back(Value(key));
    } else {
      parts.push_back(method == "values" ? value : MakeList(context, {Value(key), value}, true));
    }
  }
  return MakeList(context, std::move(parts));
}

Value Cycle(Context& context, const LoopState& loop, Arguments& arguments) {
  if (arguments.positional.empty()) return context.Fail("loop.cycle() without values"), Value();
  return arguments.positional[loop.index % arguments.positional.size()];
}

}  // namespace

Value CallMethod(Context& context, const Value& object, std::string_view method, Arguments& arguments) {
  if (!context.Step()) return Value();
  if (const Text* text = object.text()) {
    for (const auto& [name, function] : kTextMethods) {
      if (name == method) return function(context, *text, arguments);
    }
  } else if (const Map* map = object.map()) {
    return CallMapMethod(context, *map, method, arguments);
  } else if (object.loop() && method == "cycle") {
    return Cycle(context, *object.loop(), arguments);
  }
  context.Fail(object.type_name(), " has no method '", method, "'");
  return Value();
}

namespace {

// What the filter `title` cuts words at, unlike the method of that name: [-\s({\[<].
bool EndsWord(uint32_t c) {
  return IsSpace(c) ||
         (c < 0x80 && std::string_view("-({[<").find(static_cast<char>(c)) != std::string_view::npos);
}

}  // namespace

Value ChangeCase(Context& context, const Text& text, std::string_view how) {
  TextBuilder out(context);
  bool in_word = false;
  for (size_t at = 0; at < text.size() && context.ok();) {
    const CodePoint c = DecodeValidUtf8(text.bytes().data() + at);
    const auto code = static_cast<utf8proc_int32_t>(c.value);
    const bool first = how == "title" || how == "words" ? !in_word : at == 0;
    utf8proc_int32_t changed = code;
    if (how == "upper" || (how == "words" && first)) {
      changed = utf8proc_toupper(code);
    } else if (how == "lower" || !first) {
      changed = utf8proc_tolower(code);
    } else {
      changed = utf8proc_totitle(code);
    }
    std::string bytes;
    AppendUtf8(static_cast<uint32_t>(changed), &bytes);
    out.Append(bytes, text.from_template_at(at));
    in_word = how == "words" ? !EndsWord(c.value) : IsAlpha(c.value);
    at += c.length;
  }
  return Value(out.Take());
}

Value ReplaceAll(Context& context, const Text& text, const Text& from, const Text& to, int64_t count) {
  TextBuilder out(context);
  const std::string& bytes = text.bytes();
  size_t copied = 0;
  if (!ChargeSearch(context, text, from)) return Value();
  for (size_t at = 0; count != 0 && context.Step();) {
    const size_t found = bytes.find(from.bytes(), at);
    if (found == std::string::npos) break;
    out.AppendPart(text, copied, found);
    out.Append(to);
    copied = found + from.size();
    --count;
    if (!from.empty()) {
      at = copied;
    } else {  // between all characters and at both ends
      if (found >= bytes.size()) break;
      at = found + DecodeValidUtf8(bytes.data() + found).length;
    }
  }
  out.AppendPart(text, copied, bytes.size());
  return Value(out.Take());
}

Value JoinTexts(Context& context, const List& items, const Text& separator) {
  TextBuilder out(context);
  for (size_t i = 0; i < items.items.size() && context.Step(); ++i) {
    if (i > 0) out.Append(separator);
    out.AppendValue(items.items[i]);
  }
  return Value(out.Take());
}

}  // namespace orrery::jinja
