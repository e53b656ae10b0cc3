// Expressions.

#include "server/text/jinja/interpreter.h"

namespace orrery::jinja {

Value Interpreter::Evaluate(const Expr& expr) {
  DepthGuard guard(context_, context_.limits().render_depth);
  if (!context_.Step()) return Value();
  const auto child = [&](size_t i) { return Evaluate(*expr.children[i]); };
  switch (expr.kind) {
    case ExprKind::kLiteral:
      return expr.value;
    case ExprKind::kName:
      return Look(expr.name);
    case ExprKind::kList:
    case ExprKind::kTuple: {
      std::vector<Value> items;
      for (const ExprPtr& item : expr.children) items.push_back(Evaluate(*item));
      return MakeList(context_, std::move(items), expr.kind == ExprKind::kTuple);
    }
    case ExprKind::kDict:
      return EvaluateDict(expr);
    case ExprKind::kAttribute:
      return GetAttribute(context_, child(0), expr.name);
    case ExprKind::kSubscript: {
      const Value object = child(0);
      return GetItem(context_, object, child(1));
    }
    case ExprKind::kSlice: {
      const Value object = child(0), begin = EvaluateOptional(expr.children[1]);
      const Value end = EvaluateOptional(expr.children[2]);
      return GetSlice(context_, object, begin, end, EvaluateOptional(expr.children[3]));
    }
    case ExprKind::kCall:
      return EvaluateCall(expr);
    case ExprKind::kFilter:
    case ExprKind::kTest:
      return Apply(expr, EvaluateOptional(expr.children[0]));
    case ExprKind::kNot:
      return Value(!child(0).Truthy());
    case ExprKind::kNegate: {
      const Value value = child(0);
      return value.is_float() ? Value(-value.number()) : Arithmetic(context_, "-", Value(int64_t{0}), value);
    }
    case ExprKind::kPlus:
      return Arithmetic(context_, "+", Value(int64_t{0}), child(0));
    case ExprKind::kBinary: {
      const Value left = child(0);
      return Arithmetic(context_, expr.name, left, child(1));
    }
    case ExprKind::kAnd: {
      const Value left = child(0);
      return left.Truthy() ? child(1) : left;
    }
    case ExprKind::kOr: {
      const Value left = child(0);
      return left.Truthy() ? left : child(1);
    }
    case ExprKind::kCompare:
      return EvaluateCompare(expr);
    case ExprKind::kConditional:
      return child(0).Truthy() ? child(1) : EvaluateOptional(expr.children[2]);
  }
  return Value();
}

Value Interpreter::EvaluateDict(const Expr& expr) {
  Map map;
  for (size_t i = 0; i + 1 < expr.children.size() && context_.ok(); i += 2) {
    const Value key = Evaluate(*expr.children[i]);
    Value value = Evaluate(*expr.children[i + 1]);
    if (key.text() == nullptr) {
      context_.Fail("a key of a dict must be a string, not ", key.type_name());
    } else if (context_.Step(map.items.size() + 1)) {
      map.Set(*key.text(), std::move(value));
    }
  }
  return MakeMap(context_, std::move(map));
}

Value Interpreter::EvaluateCompare(const Expr& expr) {
  Value left = Evaluate(*expr.children[0]);
  for (size_t i = 0; i < expr.operators.size(); ++i) {
    const std::string& op = expr.operators[i];
    const Value right = Evaluate(*expr.children[i + 1]);
    bool holds = false;
    if (op == "==" || op == "!=") {
      holds = Equal(context_, left, right) == (op == "==");
    } else if (op == "in" || op == "not in") {
      holds = Contains(context_, right, left) == (op == "in");
    } else if (op == "<" || op == ">=") {
      holds = Less(context_, left, right) == (op == "<");
    } else {
      holds = Less(context_, right, left) == (op == ">");
    }
    if (!holds) return Value(false);
    left = right;
  }
  return Value(true);
}

Arguments Interpreter::EvaluateArguments(const Expr& call) {
  Arguments arguments;
  for (size_t i = 1; i < call.children.size(); ++i)
    arguments.positional.push_back(Evaluate(*call.children[i]));
  for (const auto& [name, value] : call.named) arguments.named.emplace_back(name, Evaluate(*value));
  return arguments;
}

Value Interpreter::EvaluateCall(const Expr& expr) {
  const Expr& callee = *expr.children[0];
  if (callee.kind == ExprKind::kAttribute) {
    const Value object = Evaluate(*callee.children[0]);
    // A namespace may hold no macro, so a call through an attribute is a method of the language.
    Arguments arguments = EvaluateArguments(expr);
    context_.set_line(expr.line);
    if (!context_.ok()) return Value();
    if (object.is_undefined()) return context_.Fail("'", callee.name, "' of an undefined value"), Value();
    return CallMethod(context_, object, callee.name, arguments);
  }
  const Value function = Evaluate(callee);
  Arguments arguments = EvaluateArguments(expr);
  context_.set_line(expr.line);
  if (!context_.ok()) return Value();
  if (function.macro() != nullptr) return CallMacro(*function.macro(), arguments);
  if (function.function() != nullptr) return function.function()->call(context_, settings_, arguments);
  const bool named = callee.kind == ExprKind::kName;
  context_.Fail(named ? std::string_view(callee.name) : function.type_name(), " cannot be called");
  return Value();
}

Value Interpreter::Apply(const Expr& expr, const Value& input) {
  const bool is_filter = expr.kind == ExprKind::kFilter;
  const Function function = is_filter ? FindFilter(expr.name) : FindTest(expr.name);
  context_.set_line(expr.line);
  if (function == nullptr) {
    context_.Fail(is_filter ? "no filter" : "no test", " named '", expr.name, "'");
    return Value();
  }
  Arguments arguments = EvaluateArguments(expr);
  return context_.ok() ? function(context_, input, arguments) : Value();
}

Value Interpreter::ApplyToBlock(const Expr* filters, const Value& text) {
  if (filters == nullptr) return text;
  const Expr* input = filters->children[0].get();
  return Apply(*filters, ApplyToBlock(input, text));
}

}  // namespace orrery::jinja
