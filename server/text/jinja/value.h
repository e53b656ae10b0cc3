#ifndef ORRERY_SERVER_TEXT_JINJA_VALUE_H_
#define ORRERY_SERVER_TEXT_JINJA_VALUE_H_

// What a template expression evaluates to. Copies are cheap: texts, lists and maps are shared and never
// change, so values form no cycles; only a namespace() can be written to, and it cannot be put into another
// value.

#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "server/text/jinja/context.h"
#include "server/text/jinja/text.h"

namespace orrery::jinja {

class Value;
struct Macro;
struct GlobalFunction;
struct LoopState;

struct Undefined {};
struct None {};
struct List;
struct Map;
struct Namespace;

class Value {
 public:
  Value() = default;
  explicit Value(None none) : data_(none) {}
  explicit Value(bool value) : data_(value) {}
  explicit Value(int64_t value) : data_(value) {}
  explicit Value(double value) : data_(value) {}
  explicit Value(Text text) : data_(std::make_shared<const Text>(std::move(text))) {}
  explicit Value(List list);
  explicit Value(Map map);
  explicit Value(std::shared_ptr<const List> list) : data_(std::move(list)) {}
  explicit Value(std::shared_ptr<Namespace> space) : data_(std::move(space)) {}
  explicit Value(std::shared_ptr<const LoopState> loop) : data_(std::move(loop)) {}
  explicit Value(const Macro* macro) : data_(macro) {}
  explicit Value(const GlobalFunction* function) : data_(function) {}
  static Value FromTemplate(std::string_view bytes) { return Value(Text(std::string(bytes), true)); }
  static Value FromRequest(std::string_view bytes) { return Value(Text(std::string(bytes), false)); }

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_int() const { return std::holds_alternative<int64_t>(data_); }
  bool is_number() const { return is_bool() || is_int() || is_float(); }
  const Text* text() const { return Shared<const Text>(); }
  const List* list() const { return Shared<const List>(); }
  const Map* map() const { return Shared<const Map>(); }
  Namespace* space() const { return Shared<Namespace>(); }
  const LoopState* loop() const { return Shared<const LoopState>(); }
  const Macro* macro() const { return Plain<Macro>(); }
  const GlobalFunction* function() const { return Plain<GlobalFunction>(); }
  bool boolean() const { return std::get<bool>(data_); }
  // The number of a bool or an int, of a bool, an int or a float.
  int64_t integer() const { return is_bool() ? boolean() : std::get<int64_t>(data_); }
  double number() const { return is_float() ? std::get<double>(data_) : static_cast<double>(integer()); }
  bool is_integral() const { return is_bool() || is_int(); }
  std::shared_ptr<const List> shared_list() const { return std::get<std::shared_ptr<const List>>(data_); }

  bool Truthy() const;
  // How many levels of lists and maps are inside; a text has none.
  int depth() const;
  // Whether it may become an element of a list, a map or a namespace.
  bool storable() const { return !space() && !loop() && !macro() && !function(); }
  // Python's name of the type, for messages.
  std::string_view type_name() const;

 private:
  template <typename T>
  T* Shared() const {
    const auto* pointer = std::get_if<std::shared_ptr<T>>(&data_);
    return pointer == nullptr ? nullptr : pointer->get();
  }
  template <typename T>
  const T* Plain() const {
    const auto* pointer = std::get_if<const T*>(&data_);
    return pointer == nullptr ? nullptr : *pointer;
  }

  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
               std::shared_ptr<const List>, std::shared_ptr<const Map>, std::shared_ptr<Namespace>,
               std::shared_ptr<const LoopState>, const Macro*, const GlobalFunction*>
      data_;
};

struct List {
  std::vector<Value> items;
  bool tuple = false;  // prints with round brackets
  int depth = 1;       // filled by Value
};

// Keys are texts, in order of insertion.
struct Map {
  std::vector<std::pair<Text, Value>> items;
  int depth = 1;  // filled by Value

  const Value* Find(std::string_view key) const;
  void Set(Text key, Value value);
};

struct Namespace {
  Map fields;
};

// The `loop` of a for statement, at one of its rounds.
struct LoopState {
  std::shared_ptr<const List> items;
  size_t index = 0;
};

// A list or map of these elements, or a failure when they nest deeper than Limits::value_depth.
Value MakeList(Context& context, std::vector<Value> items, bool tuple = false);
Value MakeMap(Context& context, Map map);

// Python's ==; charges a step per element.
bool Equal(Context& context, const Value& a, const Value& b);
// Python's <; fails for types without an order.
bool Less(Context& context, const Value& a, const Value& b, bool case_sensitive = true);
// Python's `item in container`.
bool Contains(Context& context, const Value& container, const Value& item);
// The elements that a for loop sees: of a list, the keys of a map, the characters of a text.
std::shared_ptr<const List> Elements(Context& context, const Value& value);

}  // namespace orrery::jinja

#endif  // ORRERY_SERVER_TEXT_JINJA_VALUE_H_
