#ifndef ORRERY_SERVER_TEXT_JINJA_CALL_H_
#define ORRERY_SERVER_TEXT_JINJA_CALL_H_

// Functions of the template language: their arguments, and the tables of filters, tests, methods and global
// functions. Every function charges the context for what it touches; wrong arguments fail it and give
// undefined.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/text/jinja/context.h"
#include "server/text/jinja/value.h"

namespace orrery::jinja {

struct RenderSettings {
  int64_t now_unix_seconds = 0;  // for strftime_now, in UTC
};

// The arguments of one call, by position or by name. Each is used once; Done() refuses what is left.
class Arguments {
 public:
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at `index` or called `name`; null when absent.
  const Value* Get(size_t index, std::string_view name);
  // The same with a type; the fallback (and a failure) for another type.
  const Text* GetText(Context& context, size_t index, std::string_view name);
  int64_t GetInt(Context& context, size_t index, std::string_view name, int64_t fallback);
  bool GetBool(size_t index, std::string_view name, bool fallback);
  // Fails unless exactly the arguments asked for were given; false once anything has failed.
  bool Done(Context& context, std::string_view function);

 private:
  size_t highest_ = 0;                     // positional arguments asked for
  std::vector<std::string_view> asked_{};  // names asked for
};

using Function = Value (*)(Context& context, const Value& input, Arguments& arguments);

// Null for an unknown name.
Function FindFilter(std::string_view name);
// Tests give a bool.
Function FindTest(std::string_view name);

// object.method(arguments); fails for an unknown method.
Value CallMethod(Context& context, const Value& object, std::string_view method, Arguments& arguments);

// range, dict, namespace, raise_exception, strftime_now; null for another name.
struct GlobalFunction {
  std::string_view name;
  Value (*call)(Context& context, const RenderSettings& settings, Arguments& arguments);
};
const GlobalFunction* FindGlobal(std::string_view name);

// object.name without a call, and object[key]: undefined when there is none.
Value GetAttribute(Context& context, const Value& object, std::string_view name);
Value GetItem(Context& context, const Value& object, const Value& key);
// object[begin:end:step]; undefined bounds are absent.
Value GetSlice(Context& context, const Value& object, const Value& begin, const Value& end,
               const Value& step);
// "a.b.0" below `object`, as map(attribute=...) and selectattr read it.
Value GetPath(Context& context, const Value& object, std::string_view path);

// + - * / // % ** ~
Value Arithmetic(Context& context, std::string_view op, const Value& a, const Value& b);

// Charges a search of `part` in `text`: what the worst case of a plain search costs.
inline bool ChargeSearch(Context& context, const Text& text, const Text& part) {
  return context.Bytes(text.size(), 0) && context.Step(text.size() / 32 * (part.size() / 32) + 1);
}

// Pieces shared by filters and methods.
Value ChangeCase(Context& context, const Text& text,
                 std::string_view how);  // upper, lower, title, capitalize; words: as the filter title
Value ReplaceAll(Context& context, const Text& text, const Text& from, const Text& to, int64_t count);
Value JoinTexts(Context& context, const List& items, const Text& separator);

}  // namespace orrery::jinja

#endif  // ORRERY_SERVER_TEXT_JINJA_CALL_H_
