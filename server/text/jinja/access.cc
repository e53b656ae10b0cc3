// Attributes, items, slices and arithmetic of values.

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/numbers.h"
#include "server/text/jinja/call.h"
#include "server/text/jinja/format.h"

namespace orrery::jinja {
namespace {

Value LoopField(Context& context, const LoopState& loop, std::string_view name) {
  const auto& items = loop.items->items;
  const auto index = static_cast<int64_t>(loop.index), length = static_cast<int64_t>(items.size());
  if (name == "index") return Value(index + 1);
  if (name == "index0") return Value(index);
  if (name == "revindex") return Value(length - index);
  if (name == "revindex0") return Value(length - index - 1);
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index + 1 == length);
  if (name == "length") return Value(length);
  // Levels of recursive loops, which there are none of.
  if (name == "depth" || name == "depth0") return Value(int64_t{name == "depth"});
  if (name == "previtem") return index > 0 ? items[loop.index - 1] : Value();
  if (name == "nextitem") return index + 1 < length ? items[loop.index + 1] : Value();
  context.Fail("loop has no attribute '", name, "'");
  return Value();
}

// Python's rules for one bound of a slice over `length` elements.
int64_t Bound(Context& context, const Value& value, int64_t length, int64_t step, bool is_begin) {
  if (value.is_undefined() || value.is_none())
    return is_begin ? (step > 0 ? 0 : length - 1) : (step > 0 ? length : -1);
  if (!value.is_integral()) {
    context.Fail("a slice needs whole numbers, not ", value.type_name());
    return 0;
  }
  int64_t at = value.integer();
  if (at < 0) at = at < -length ? -1 : at + length;
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? length : length - 1;
  return std::clamp(at, low, std::max(low, high));
}

Value Repeat(Context& context, const Value& value, int64_t count) {
  if (const Text* text = value.text()) {
    TextBuilder out(context);
    for (int64_t i = 0; i < count && !text->empty() && context.Step(); ++i) out.Append(*text);
    return Value(out.Take());
  }
  std::vector<Value> items;
  const auto& source = value.list()->items;
  for (int64_t i = 0; i < count && !source.empty() && context.Step(source.size()); ++i) {
    items.insert(items.end(), source.begin(), source.end());
  }
  return MakeList(context, std::move(items), value.list()->tuple);
}

int64_t FloorDivide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return quotient - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
}

bool IntegerPower(int64_t base, int64_t exponent, int64_t* result) {
  *result = 1;
  if (base == 0 || base == 1) {
    *result = exponent == 0 ? 1 : base;
    return true;
  }
  if (base == -1) {
    *result = exponent % 2 == 0 ? 1 : -1;
    return true;
  }
  for (; exponent > 0; --exponent) {
    if (__builtin_mul_overflow(*result, base, result)) return false;
  }
  return true;
}

Value IntegerArithmetic(Context& context, std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (op == "+") overflow = __builtin_add_overflow(a, b, &result);
  if (op == "-") overflow = __builtin_sub_overflow(a, b, &result);
  if (op == "*") overflow = __builtin_mul_overflow(a, b, &result);
  if (op == "**") overflow = !IntegerPower(a, b, &result);
  if (op == "//" || op == "%") {
    if (b == 0) return context.Fail("division by zero"), Value();
    overflow = a == std::numeric_limits<int64_t>::min() && b == -1;
    if (!overflow) result = op == "%" ? a - FloorDivide(a, b) * b : FloorDivide(a, b);
  }
  if (overflow) return context.Fail("a whole number beyond 64 bits"), Value();
  return Value(result);
}

Value FloatArithmetic(Context& context, std::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") return Value(std::pow(a, b));
  if (b == 0) return context.Fail("division by zero"), Value();
  if (op == "/") return Value(a / b);
  if (op == "//") return Value(std::floor(a / b));
  const double rest = std::fmod(a, b);
  return Value(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
}

}  // namespace

Value GetAttribute(Context& context, const Value& object, std::string_view name) {
  if (!context.Step()) return Value();
  if (const LoopState* loop = object.loop()) return LoopField(context, *loop, name);
  if (const Namespace* space = object.space()) {
    const Value* field = space->fields.Find(name);
    return field == nullptr ? Value() : *field;
  }
  if (const Map* map = object.map()) {
    const Value* field = map->Find(name);
    return field == nullptr ? Value() : *field;
  }
  if (object.is_undefined()) context.Fail("attribute '", name, "' of an undefined value");
  return Value();
}

Value GetItem(Context& context, const Value& object, const Value& key) {
  if (key.text() != nullptr && !object.text() && !object.list()) {
    return GetAttribute(context, object, key.text()->bytes());
  }
  if (object.is_undefined()) return context.Fail("an element of an undefined value"), Value();
  if (!key.is_integral()) return Value();
  int64_t index = key.integer();
  if (const List* list = object.list()) {
    const auto length = static_cast<int64_t>(list->items.size());
    if (index < 0) index += length;
    return index < 0 || index >= length ? Value() : list->items[static_cast<size_t>(index)];
  }
  if (const Text* text = object.text()) {
    if (!context.Bytes(text->size(), 0)) return Value();
    if (index < 0) index += static_cast<int64_t>(CountCodePoints(text->bytes()));
    if (index < 0) return Value();
    const size_t begin = OffsetOfCodePoint(text->bytes(), static_cast<size_t>(index));
    if (begin >= text->size()) return Value();
    const size_t length = OffsetOfCodePoint(std::string_view(text->bytes()).substr(begin), 1);
    return Value(text->Part(begin, begin + length));
  }
  return Value();
}

Value GetSlice(Context& context, const Value& object, const Value& begin, const Value& end,
               const Value& step_value) {
  int64_t step = 1;
  if (step_value.is_integral()) step = step_value.integer();
  if (step == 0 || step == std::numeric_limits<int64_t>::min())
    return context.Fail("bad step of a slice"), Value();
  const Text* text = object.text();
  const List* list = object.list();
  if (text == nullptr && list == nullptr) {
    return context.Fail(object.type_name(), " cannot be sliced"), Value();
  }
  if (text != nullptr && !context.Bytes(text->size(), 0)) return Value();
  const auto length = static_cast<int64_t>(text ? CountCodePoints(text->bytes()) : list->items.size());
  const int64_t first = Bound(context, begin, length, step, true),
                last = Bound(context, end, length, step, false);
  if (!context.ok()) return Value();
  if (text != nullptr && step == 1) {
    const size_t from = OffsetOfCodePoint(text->bytes(), static_cast<size_t>(first));
    const size_t to = OffsetOfCodePoint(text->bytes(), static_cast<size_t>(std::max(first, last)));
    return context.Bytes(to - from, to - from) ? Value(text->Part(from, to)) : Value();
  }
  const std::shared_ptr<const List> elements = Elements(context, object);
  std::vector<Value> picked;
  for (int64_t at = first; context.Step() && (step > 0 ? at < last : at > last); at += step) {
    picked.push_back(elements->items[static_cast<size_t>(at)]);
    if (step > length || step < -length) break;
  }
  if (text == nullptr) return MakeList(context, std::move(picked), list->tuple);
  TextBuilder out(context);
  for (const Value& character : picked) out.AppendValue(character);
  return Value(out.Take());
}

Value GetPath(Context& context, const Value& object, std::string_view path) {
  Value value = object;
  while (context.ok()) {
    const size_t dot = path.find('.');
    const std::string_view part = path.substr(0, dot);
    int64_t index = 0;
    if (value.is_undefined()) return value;
    value = absl::SimpleAtoi(std::string(part), &index) ? GetItem(context, value, Value(index))
                                                        : GetAttribute(context, value, part);
    if (dot == std::string_view::npos) break;
    path.remove_prefix(dot + 1);
  }
  return value;
}

Value Arithmetic(Context& context, std::string_view op, const Value& a, const Value& b) {
  if (!context.Step()) return Value();
  if (op == "~" || (op == "+" && a.text() && b.text())) {
    TextBuilder out(context);
    out.AppendValue(a);
    out.AppendValue(b);
    return Value(out.Take());
  }
  if (a.is_number() && b.is_number()) {
    const bool whole = a.is_integral() && b.is_integral() && op != "/" && !(op == "**" && b.integer() < 0);
    return whole ? IntegerArithmetic(context, op, a.integer(), b.integer())
                 : FloatArithmetic(context, op, a.number(), b.number());
  }
  if (op == "+" && a.list() && b.list()) {
    if (!context.Step(a.list()->items.size() + b.list()->items.size())) return Value();
    std::vector<Value> items = a.list()->items;
    items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
    return MakeList(context, std::move(items), a.list()->tuple);
  }
  if (op == "*" && (a.text() || a.list()) && b.is_integral()) return Repeat(context, a, b.integer());
  if (op == "*" && (b.text() || b.list()) && a.is_integral()) return Repeat(context, b, a.integer());
  context.Fail("'", op, "' between ", a.type_name(), " and ", b.type_name());
  return Value();
}

}  // namespace orrery::jinja
