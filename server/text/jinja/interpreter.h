#ifndef ORRERY_SERVER_TEXT_JINJA_INTERPRETER_H_
#define ORRERY_SERVER_TEXT_JINJA_INTERPRETER_H_

// Runs the statements of a template. Names live in a stack of scopes: a loop's body and a macro have one of
// their own, an `if` has none. Expressions are in evaluator.cc.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/text/jinja/ast.h"
#include "server/text/jinja/call.h"
#include "server/text/jinja/context.h"
#include "server/text/jinja/format.h"

namespace orrery::jinja {

class Interpreter {
 public:
  Interpreter(Context& context, const RenderSettings& settings, Map variables);

  // The rendered text; on an error the context has failed.
  Text Run(const Body& body);

 private:
  enum class Flow { kNext, kBreak, kContinue };
  using Scope = std::vector<std::pair<std::string, Value>>;

  // Statements write to the innermost output.
  Flow Execute(const Body& body);
  Flow ExecuteOne(const Stmt& stmt);
  Flow ExecuteIf(const Stmt& stmt);
  Flow ExecuteFor(const Stmt& stmt);
  Flow ExecuteWith(const Stmt& stmt);
  void Assign(const Target& target, const Value& value);
  // What `body` writes, in a scope of its own if `scoped`.
  Value Capture(const Body& body, bool scoped);

  Value Evaluate(const Expr& expr);
  Value EvaluateOptional(const ExprPtr& expr) { return expr == nullptr ? Value() : Evaluate(*expr); }
  Value EvaluateDict(const Expr& expr);
  Value EvaluateCompare(const Expr& expr);
  Value EvaluateCall(const Expr& expr);
  // A filter or a test over `input`.
  Value Apply(const Expr& expr, const Value& input);
  // A chain of filters whose innermost input is `body`'s text.
  Value ApplyToBlock(const Expr* filters, const Value& text);
  Arguments EvaluateArguments(const Expr& call);
  Value CallMacro(const Macro& macro, Arguments& arguments);

  Value Look(std::string_view name) const;
  void Set(const std::string& name, Value value);

  Context& context_;
  const RenderSettings& settings_;
  std::vector<Scope> scopes_;  // scopes_[0]: the template's own names, below them the variables
  size_t frame_ = 0;           // names between scope 0 and this one belong to the callers of a macro
  TextBuilder* out_ = nullptr;
};

}  // namespace orrery::jinja

#endif  // ORRERY_SERVER_TEXT_JINJA_INTERPRETER_H_
