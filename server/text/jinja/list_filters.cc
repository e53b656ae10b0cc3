#include "server/text/jinja/list_filters.h"

#include <algorithm>
#include <utility>

#include "server/text/jinja/format.h"

namespace orrery::jinja {
namespace {

using Items = std::vector<Value>;

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
  const std::shared_ptr<const List> elements = Elements(context, input);
  for (const Value& item : elements->items) {
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
  const bool case_sensitive = arguments.GetBool(0, "case_sensitive", false);
  const Text* path = arguments.GetText(context, 1, "attribute");
  if (!arguments.Done(context, "unique")) return Value();
  Items kept, keys;  // a key is what tells items apart
  const std::shared_ptr<const List> elements = Elements(context, input);
  for (const Value& item : elements->items) {
    Value key = path == nullptr ? item : GetPath(context, item, path->bytes());
    if (!case_sensitive && key.text() != nullptr) key = ChangeCase(context, *key.text(), "lower");
    const bool seen =
        std::any_of(keys.begin(), keys.end(), [&](const Value& v) { return Equal(context, v, key); });
    if (!context.ok()) return Value();
    if (seen) continue;
    kept.push_back(item);
    keys.push_back(std::move(key));
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
  const std::shared_ptr<const List> elements = Elements(context, input);
  for (const Value& item : elements->items) {
    total = Arithmetic(context, "+", total, path == nullptr ? item : GetPath(context, item, path->bytes()));
    if (!context.ok()) return Value();
  }
  return total;
}

constexpr std::pair<std::string_view, Function> kListFilters[] = {
    {"dictsort", DictSort},
    {"first", First},
    {"items", ItemsFilter},
    {"join", Join},
    {"last", Last},
    {"list", ListFilter},
    {"map", MapFilter},
    {"max", [](Context& c, const Value& v, Arguments& a) { return Extreme(c, v, a, true); }},
    {"min", [](Context& c, const Value& v, Arguments& a) { return Extreme(c, v, a, false); }},
    {"reject", [](Context& c, const Value& v, Arguments& a) { return Select(c, v, a, false, false); }},
    {"rejectattr", [](Context& c, const Value& v, Arguments& a) { return Select(c, v, a, true, false); }},
    {"reverse", Reverse},
    {"select", [](Context& c, const Value& v, Arguments& a) { return Select(c, v, a, false, true); }},
    {"selectattr", [](Context& c, const Value& v, Arguments& a) { return Select(c, v, a, true, true); }},
    {"sort", Sort},
    {"sum", Sum},
    {"unique", Unique},
};

}  // namespace

Function FindListFilter(std::string_view name) {
  for (const auto& [known, function] : kListFilters) {
    if (known == name) return function;
  }
  return nullptr;
}

}  // namespace orrery::jinja
