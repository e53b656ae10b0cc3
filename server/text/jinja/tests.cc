// The tests of "value is name(argument)".

#include <cmath>
#include <utility>

#include "server/text/jinja/call.h"

namespace orrery::jinja {
namespace {

using Predicate = bool (*)(const Value&);

template <Predicate kPredicate>
Value Check(Context& context, const Value& input, Arguments& arguments) {
  return arguments.Done(context, "a test") ? Value(kPredicate(input)) : Value(false);
}

bool IsTrue(const Value& v) { return v.is_bool() && v.boolean(); }
bool IsFalse(const Value& v) { return v.is_bool() && !v.boolean(); }
bool IsIterable(const Value& v) { return v.text() || v.list() || v.map() || v.is_undefined(); }
bool IsSequence(const Value& v) { return v.text() || v.list() || v.map(); }

bool IsCase(const Value& v, char low, char high) {
  if (v.text() == nullptr) return false;
  bool found = false;
  for (char c : v.text()->bytes()) {
    const bool lower = c >= 'a' && c <= 'z', upper = c >= 'A' && c <= 'Z';
    if ((lower || upper) && !(c >= low && c <= high)) return false;
    found = found || lower || upper;
  }
  return found;
}

const Value* One(Context& context, Arguments& arguments) {
  const Value* other = arguments.Get(0, "other");
  if (other == nullptr) context.Fail("the test needs an argument");
  return arguments.Done(context, "the test") ? other : nullptr;
}

Value CompareTest(Context& context, const Value& input, Arguments& arguments, bool swap, bool negate) {
  const Value* other = One(context, arguments);
  if (other == nullptr) return Value(false);
  return Value((swap ? Less(context, *other, input) : Less(context, input, *other)) != negate);
}

Value EqualTest(Context& context, const Value& input, Arguments& arguments, bool wanted) {
  const Value* other = One(context, arguments);
  return Value(other != nullptr && Equal(context, input, *other) == wanted);
}

Value InTest(Context& context, const Value& input, Arguments& arguments) {
  const Value* container = One(context, arguments);
  return Value(container != nullptr && Contains(context, *container, input));
}

Value SameAs(Context& context, const Value& input, Arguments& arguments) {
  const Value* other = One(context, arguments);
  const bool same = other != nullptr && input.type_name() == other->type_name();
  return Value(same && Equal(context, input, *other));
}

Value Divisible(Context& context, const Value& input, Arguments& arguments) {
  const int64_t by = arguments.GetInt(context, 0, "num", 0);
  if (!arguments.Done(context, "divisibleby")) return Value(false);
  if (!input.is_integral() || by == 0) return context.Fail("divisibleby needs whole numbers"), Value(false);
  return Value(by == -1 || input.integer() % by == 0);
}

Value Parity(Context& context, const Value& input, Arguments& arguments, int64_t rest) {
  if (!arguments.Done(context, "even")) return Value(false);
  if (!input.is_integral()) return context.Fail("even needs a whole number"), Value(false);
  return Value((input.integer() & 1) == rest);
}

constexpr auto kEqual = [](Context& c, const Value& v, Arguments& a) { return EqualTest(c, v, a, true); };
constexpr auto kUnequal = [](Context& c, const Value& v, Arguments& a) { return EqualTest(c, v, a, false); };
constexpr auto kLess = [](Context& c, const Value& v, Arguments& a) {
  return CompareTest(c, v, a, false, false);
};
constexpr auto kGreater = [](Context& c, const Value& v, Arguments& a) {
  return CompareTest(c, v, a, true, false);
};
constexpr auto kAtMost = [](Context& c, const Value& v, Arguments& a) {
  return CompareTest(c, v, a, true, true);
};
constexpr auto kAtLeast = [](Context& c, const Value& v, Arguments& a) {
  return CompareTest(c, v, a, false, true);
};

constexpr std::pair<std::string_view, Function> kTests[] = {
    {"defined", Check<[](const Value& v) { return !v.is_undefined(); }>},
    {"undefined", Check<[](const Value& v) { return v.is_undefined(); }>},
    {"none", Check<[](const Value& v) { return v.is_none(); }>},
    {"string", Check<[](const Value& v) { return v.text() != nullptr; }>},
    {"mapping", Check<[](const Value& v) { return v.map() != nullptr; }>},
    {"iterable", Check<IsIterable>},
    {"sequence", Check<IsSequence>},
    {"number", Check<[](const Value& v) { return v.is_number(); }>},
    {"integer", Check<[](const Value& v) { return v.is_int(); }>},
    {"float", Check<[](const Value& v) { return v.is_float(); }>},
    {"boolean", Check<[](const Value& v) { return v.is_bool(); }>},
    {"true", Check<IsTrue>},
    {"false", Check<IsFalse>},
    {"callable", Check<[](const Value& v) { return v.macro() != nullptr || v.function() != nullptr; }>},
    {"lower", Check<[](const Value& v) { return IsCase(v, 'a', 'z'); }>},
    {"upper", Check<[](const Value& v) { return IsCase(v, 'A', 'Z'); }>},
    {"in", InTest},
    {"sameas", SameAs},
    {"divisibleby", Divisible},
    {"even", [](Context& c, const Value& v, Arguments& a) { return Parity(c, v, a, 0); }},
    {"odd", [](Context& c, const Value& v, Arguments& a) { return Parity(c, v, a, 1); }},
    {"==", kEqual},
    {"!=", kUnequal},
    {"<", kLess},
    {">", kGreater},
    {"<=", kAtMost},
    {">=", kAtLeast},
    {"eq", kEqual},
    {"equalto", kEqual},
    {"ne", kUnequal},
    {"lt", kLess},
    {"lessthan", kLess},
    {"gt", kGreater},
    {"greaterthan", kGreater},
    {"le", kAtMost},
    {"ge", kAtLeast},
};

}  // namespace

Function FindTest(std::string_view name) {
  for (const auto& [known, function] : kTests) {
    if (known == name) return function;
  }
  return nullptr;
}

}  // namespace orrery::jinja
