#include "server/text/jinja/interpreter.h"

#include <memory>

namespace orrery::jinja {

Interpreter::Interpreter(Context& context, const RenderSettings& settings, Map variables)
    : context_(context), settings_(settings), scopes_(1) {
  for (auto& [name, value] : variables.items) scopes_[0].emplace_back(name.bytes(), std::move(value));
}

Text Interpreter::Run(const Body& body) {
  const Value text = Capture(body, false);
  return text.text() == nullptr ? Text() : *text.text();
}

Value Interpreter::Capture(const Body& body, bool scoped) {
  TextBuilder out(context_);
  TextBuilder* const outer = std::exchange(out_, &out);
  if (scoped) scopes_.emplace_back();
  Execute(body);
  if (scoped) scopes_.pop_back();
  out_ = outer;
  return Value(out.Take());
}

Interpreter::Flow Interpreter::Execute(const Body& body) {
  DepthGuard guard(context_, context_.limits().render_depth);
  for (const auto& stmt : body) {
    context_.set_line(stmt->line);
    if (!context_.Step()) return Flow::kBreak;
    const Flow flow = ExecuteOne(*stmt);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecuteOne(const Stmt& stmt) {
  switch (stmt.kind) {
    case StmtKind::kData:
      out_->AppendValue(stmt.value);
      break;
    case StmtKind::kOutput:
      out_->AppendValue(Evaluate(*stmt.expression));
      break;
    case StmtKind::kIf:
      return ExecuteIf(stmt);
    case StmtKind::kFor:
      return ExecuteFor(stmt);
    case StmtKind::kSet:
      Assign(stmt.target, Evaluate(*stmt.expression));
      break;
    case StmtKind::kSetBlock:
      Assign(stmt.target, ApplyToBlock(stmt.expression.get(), Capture(stmt.body, true)));
      break;
    case StmtKind::kFilter:
      out_->AppendValue(ApplyToBlock(stmt.expression.get(), Capture(stmt.body, true)));
      break;
    case StmtKind::kWith:
      return ExecuteWith(stmt);
    case StmtKind::kMacro:
      Set(stmt.macro->name, Value(stmt.macro.get()));
      break;
    case StmtKind::kScopeless:
      return Execute(stmt.body);
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecuteIf(const Stmt& stmt) {
  for (const Branch& branch : stmt.branches) {
    if (branch.condition == nullptr || Evaluate(*branch.condition).Truthy()) {
      return context_.ok() ? Execute(branch.body) : Flow::kBreak;
    }
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecuteFor(const Stmt& stmt) {
  std::shared_ptr<const List> items = Elements(context_, Evaluate(*stmt.expression));
  if (stmt.condition != nullptr) {
    List kept;
    for (const Value& item : items->items) {
      scopes_.emplace_back();
      Assign(stmt.target, item);
      if (Evaluate(*stmt.condition).Truthy()) kept.items.push_back(item);
      scopes_.pop_back();
      if (!context_.ok()) return Flow::kBreak;
    }
    items = std::make_shared<const List>(std::move(kept));
  }
  if (items->items.empty()) {
    scopes_.emplace_back();
    const Flow flow = Execute(stmt.else_body);  // a break there ends the loop around this one
    scopes_.pop_back();
    return flow;
  }
  for (size_t i = 0; i < items->items.size() && context_.ok(); ++i) {
    scopes_.emplace_back();
    Set("loop", Value(std::make_shared<const LoopState>(LoopState{items, i})));
    Assign(stmt.target, items->items[i]);
    const Flow flow = Execute(stmt.body);
    scopes_.pop_back();
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecuteWith(const Stmt& stmt) {
  Scope scope;
  for (const auto& [name, value] : stmt.assignments) scope.emplace_back(name, Evaluate(*value));
  scopes_.push_back(std::move(scope));
  const Flow flow = Execute(stmt.body);
  scopes_.pop_back();
  return flow;
}

void Interpreter::Assign(const Target& target, const Value& value) {
  if (!context_.ok()) return;
  if (!target.attribute.empty()) {
    Namespace* space = Look(target.names[0]).space();
    if (space == nullptr) return context_.Fail("'", target.names[0], "' is no namespace");
    if (!value.storable()) return context_.Fail("a ", value.type_name(), " cannot be stored in a namespace");
    if (context_.Step(space->fields.items.size() + 1)) space->fields.Set(Text(target.attribute, true), value);
    return;
  }
  if (!target.unpack) return Set(target.names[0], value);
  const std::shared_ptr<const List> parts = Elements(context_, value);
  if (parts->items.size() != target.names.size()) {
    return context_.Fail(parts->items.size(), " values for ", target.names.size(), " names");
  }
  for (size_t i = 0; i < target.names.size(); ++i) Set(target.names[i], parts->items[i]);
}

void Interpreter::Set(const std::string& name, Value value) {
  Scope& scope = scopes_.back();
  if (!context_.Step(scope.size() / 8 + 1)) return;
  for (auto& [known, old] : scope) {
    if (known == name) {
      old = std::move(value);
      return;
    }
  }
  scope.emplace_back(name, std::move(value));
}

Value Interpreter::Look(std::string_view name) const {
  for (size_t i = scopes_.size(); i-- > 0;) {
    if (i != 0 && i < frame_) i = 0;
    context_.Step(scopes_[i].size() / 8 + 1);
    for (const auto& [known, value] : scopes_[i]) {
      if (known == name) return value;
    }
  }
  const GlobalFunction* function = FindGlobal(name);
  return function == nullptr ? Value() : Value(function);
}

Value Interpreter::CallMacro(const Macro& macro, Arguments& arguments) {
  Scope scope;
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const auto& [name, fallback] = macro.parameters[i];
    const Value* given = arguments.Get(i, name);
    scope.emplace_back(name, given != nullptr ? *given : Value());
  }
  if (!arguments.Done(context_, macro.name)) return Value();
  const size_t frame = std::exchange(frame_, scopes_.size());
  scopes_.push_back(std::move(scope));
  // A default may use the parameters before it.
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const auto& [name, fallback] = macro.parameters[i];
    if (fallback != nullptr && arguments.Get(i, name) == nullptr) Set(name, Evaluate(*fallback));
  }
  const Value text = Capture(macro.body, false);
  scopes_.pop_back();
  frame_ = frame;
  return text;
}

}  // namespace orrery::jinja
