#include "server/text/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "server/text/utf8.h"

namespace orrery::jinja {
namespace {

bool EqualLists(Context& context, const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!Equal(context, a[i], b[i])) return false;
  }
  return true;
}

bool EqualMaps(Context& context, const Map& a, const Map& b) {
  if (a.items.size() != b.items.size()) return false;
  for (const auto& [key, value] : a.items) {
    if (!context.Step(b.items.size())) return false;
    const Value* other = b.Find(key.bytes());
    if (other == nullptr || !Equal(context, value, *other)) return false;
  }
  return true;
}

std::string AsciiLower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = (c >= 'A' && c <= 'Z') ? static_cast<char>(c + 32) : c;
  return lower;
}

}  // namespace

Value::Value(List list) {
  for (const Value& item : list.items) list.depth = std::max(list.depth, item.depth() + 1);
  data_ = std::make_shared<const List>(std::move(list));
}

Value::Value(Map map) {
  for (const auto& [key, item] : map.items) map.depth = std::max(map.depth, item.depth() + 1);
  data_ = std::make_shared<const Map>(std::move(map));
}

bool Value::Truthy() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return number() != 0;
  if (const Text* t = text()) return !t->empty();
  if (const List* l = list()) return !l->items.empty();
  if (const Map* m = map()) return !m->items.empty();
  return true;
}

int Value::depth() const {
  if (const List* l = list()) return l->depth;
  if (const Map* m = map()) return m->depth;
  return 0;
}

std::string_view Value::type_name() const {
  if (is_undefined()) return "undefined";
  if (is_none()) return "none";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_float()) return "float";
  if (text()) return "str";
  if (list()) return "list";
  if (map()) return "dict";
  if (space()) return "namespace";
  return loop() ? "loop" : "function";
}

const Value* Map::Find(std::string_view key) const {
  for (const auto& [name, value] : items) {
    if (name.bytes() == key) return &value;
  }
  return nullptr;
}

void Map::Set(Text key, Value value) {
  for (auto& [name, old] : items) {
    if (name.bytes() == key.bytes()) {
      old = std::move(value);
      return;
    }
  }
  items.emplace_back(std::move(key), std::move(value));
}

Value MakeList(Context& context, std::vector<Value> items, bool tuple) {
  for (const Value& item : items) {
    if (!item.storable()) context.Fail("a ", item.type_name(), " cannot be put into a list");
    if (item.depth() >= context.limits().value_depth)
      context.Exceeded("nested lists", context.limits().value_depth);
  }
  if (!context.Step(items.size() + 1)) return Value();
  return Value(List{std::move(items), tuple});
}

Value MakeMap(Context& context, Map map) {
  for (const auto& [key, item] : map.items) {
    if (!item.storable()) context.Fail("a ", item.type_name(), " cannot be put into a dict");
    if (item.depth() >= context.limits().value_depth)
      context.Exceeded("nested dicts", context.limits().value_depth);
  }
  if (!context.Step(map.items.size() + 1)) return Value();
  return Value(std::move(map));
}

bool Equal(Context& context, const Value& a, const Value& b) {
  if (!context.Step()) return false;
  if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
  if (a.is_number() && b.is_number()) return a.number() == b.number();
  if (a.text() && b.text()) return a.text()->bytes() == b.text()->bytes();
  if (a.list() && b.list()) {
    return a.list()->tuple == b.list()->tuple && EqualLists(context, a.list()->items, b.list()->items);
  }
  if (a.map() && b.map()) return EqualMaps(context, *a.map(), *b.map());
  if (a.space() || b.space()) return a.space() == b.space();
  if (a.macro() || b.macro()) return a.macro() == b.macro();
  if (a.function() || b.function()) return a.function() == b.function();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

bool Less(Context& context, const Value& a, const Value& b, bool case_sensitive) {
  if (!context.Step()) return false;
  if (a.is_integral() && b.is_integral()) return a.integer() < b.integer();
  if (a.is_number() && b.is_number()) return a.number() < b.number();
  if (a.text() && b.text()) {
    if (case_sensitive) return a.text()->bytes() < b.text()->bytes();
    if (!context.Bytes(a.text()->size() + b.text()->size(), 0)) return false;
    return AsciiLower(a.text()->bytes()) < AsciiLower(b.text()->bytes());
  }
  if (a.list() && b.list()) {
    const auto &x = a.list()->items, &y = b.list()->items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!Equal(context, x[i], y[i])) return Less(context, x[i], y[i], case_sensitive);
    }
    return x.size() < y.size();
  }
  context.Fail("no order between ", a.type_name(), " and ", b.type_name());
  return false;
}

bool Contains(Context& context, const Value& container, const Value& item) {
  if (const Text* text = container.text()) {
    if (const Text* part = item.text()) {
      if (!context.Bytes(text->size(), 0) || !context.Step(text->size() / 32 * (part->size() / 32) + 1))
        return false;
      return text->bytes().find(part->bytes()) != std::string::npos;
    }
    context.Fail("'in <str>' needs a string, not ", item.type_name());
    return false;
  }
  if (const Map* map = container.map()) {
    context.Step(map->items.size());
    return item.text() != nullptr && map->Find(item.text()->bytes()) != nullptr;
  }
  if (const List* list = container.list()) {
    return std::any_of(list->items.begin(), list->items.end(),
                       [&](const Value& element) { return Equal(context, element, item); });
  }
  if (!container.is_undefined()) context.Fail("'in' needs a container, not ", container.type_name());
  return false;
}

std::shared_ptr<const List> Elements(Context& context, const Value& value) {
  if (value.list()) return value.shared_list();
  List elements;
  if (const Map* map = value.map()) {
    if (!context.Step(map->items.size())) return std::make_shared<const List>();
    for (const auto& [key, item] : map->items) elements.items.push_back(Value(key));
  } else if (const Text* text = value.text()) {
    if (!context.Step(text->size())) return std::make_shared<const List>();
    for (size_t at = 0; at < text->size();) {
      const size_t next = at + DecodeValidUtf8(text->bytes().data() + at).length;
      elements.items.push_back(Value(text->Part(at, next)));
      at = next;
    }
  } else if (!value.is_undefined()) {
    context.Fail(value.type_name(), " cannot be iterated over");
  }
  return std::make_shared<const List>(std::move(elements));
}

}  // namespace orrery::jinja
