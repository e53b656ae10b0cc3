#include "server/text/jinja/call.h"

#include <algorithm>
#include <ctime>

namespace orrery::jinja {
namespace {

constexpr int64_t kMaxRange = 100000;  // elements, the limit of Jinja's sandbox

Value Range(Context& context, const RenderSettings&, Arguments& arguments) {
  const bool one = arguments.positional.size() == 1;
  const int64_t first = arguments.GetInt(context, 0, "start", 0);
  const int64_t begin = one ? 0 : first;
  const int64_t end = one ? first : arguments.GetInt(context, 1, "stop", 0);
  const int64_t step = arguments.GetInt(context, 2, "step", 1);
  if (!arguments.Done(context, "range")) return Value();
  if (step == 0) return context.Fail("range() with a step of 0"), Value();
  std::vector<Value> items;
  for (__int128 at = begin; step > 0 ? at < end : at > end; at += step) {
    if (static_cast<int64_t>(items.size()) >= kMaxRange)
      return context.Exceeded("elements of range()", kMaxRange), Value();
    if (!context.Step()) return Value();
    items.push_back(Value(static_cast<int64_t>(at)));
  }
  return MakeList(context, std::move(items));
}

// dict(...) and namespace(...): named values over a copy of one map.
Map NamedValues(Context& context, Arguments& arguments, std::string_view function) {
  Map map;
  if (!arguments.positional.empty()) {
    if (const Map* base = arguments.positional[0].map();
        base != nullptr && arguments.positional.size() == 1) {
      if (context.Step(base->items.size())) map.items = base->items;
    } else {
      context.Fail(function, "() takes one dict and named values");
    }
  }
  for (auto& [name, value] : arguments.named) {
    if (!context.Step(map.items.size() + 1)) break;
    if (!value.storable()) context.Fail("a ", value.type_name(), " cannot be stored");
    map.Set(Text(name, true), value);
  }
  return map;
}

Value RaiseException(Context& context, const RenderSettings&, Arguments& arguments) {
  const Text* message = arguments.GetText(context, 0, "message");
  if (message != nullptr) context.Fail(message->bytes().substr(0, 1000));
  context.Fail("raise_exception() without a message");
  return Value();
}

Value StrftimeNow(Context& context, const RenderSettings& settings, Arguments& arguments) {
  const Text* format = arguments.GetText(context, 0, "format");
  if (!arguments.Done(context, "strftime_now") || format == nullptr) return Value();
  const auto now = static_cast<time_t>(settings.now_unix_seconds);
  std::tm fields{};
  char buffer[512];
  // A leading character tells "nothing to write" from "does not fit".
  if (format->size() > 128 || gmtime_r(&now, &fields) == nullptr)
    return context.Fail("strftime_now: bad format"), Value();
  const size_t length =
      std::strftime(buffer, sizeof(buffer), std::string(" ").append(format->bytes()).c_str(), &fields);
  if (length == 0) return context.Fail("strftime_now: bad format"), Value();
  return Value(Text(std::string(buffer + 1, length - 1), format->all_from_template()));
}

Value Dict(Context& context, const RenderSettings&, Arguments& arguments) {
  return MakeMap(context, NamedValues(context, arguments, "dict"));
}

Value MakeNamespace(Context& context, const RenderSettings&, Arguments& arguments) {
  auto space = std::make_shared<Namespace>();
  space->fields = NamedValues(context, arguments, "namespace");
  return Value(std::move(space));
}

constexpr GlobalFunction kGlobals[] = {{"range", Range},
                                       {"dict", Dict},
                                       {"namespace", MakeNamespace},
                                       {"raise_exception", RaiseException},
                                       {"strftime_now", StrftimeNow}};

}  // namespace

const Value* Arguments::Get(size_t index, std::string_view name) {
  highest_ = std::max(highest_, index + 1);
  asked_.push_back(name);
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

const Text* Arguments::GetText(Context& context, size_t index, std::string_view name) {
  const Value* value = Get(index, name);
  if (value == nullptr) return nullptr;
  if (value->text() == nullptr)
    context.Fail("argument '", name, "' needs a string, not ", value->type_name());
  return value->text();
}

int64_t Arguments::GetInt(Context& context, size_t index, std::string_view name, int64_t fallback) {
  const Value* value = Get(index, name);
  if (value == nullptr || value->is_none()) return fallback;
  if (value->is_integral()) return value->integer();
  context.Fail("argument '", name, "' needs a whole number, not ", value->type_name());
  return fallback;
}

bool Arguments::GetBool(size_t index, std::string_view name, bool fallback) {
  const Value* value = Get(index, name);
  return value == nullptr ? fallback : value->Truthy();
}

bool Arguments::Done(Context& context, std::string_view function) {
  if (positional.size() > highest_) context.Fail(function, "() takes at most ", highest_, " arguments");
  for (const auto& [name, value] : named) {
    if (std::find(asked_.begin(), asked_.end(), name) == asked_.end()) {
      context.Fail(function, "() has no argument '", name, "'");
    }
  }
  return context.ok();
}

const GlobalFunction* FindGlobal(std::string_view name) {
  for (const GlobalFunction& function : kGlobals) {
    if (function.name == name) return &function;
  }
  return nullptr;
}

}  // namespace orrery::jinja
