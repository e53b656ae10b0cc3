#include "server/text/jinja/expression_parser.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "absl/strings/numbers.h"

namespace orrery::jinja {
namespace {

// Recursive descent; one function per level of precedence, loosest first.
class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens), context_(tokens.context()) {}

  ExprPtr Tuple() {
    ExprPtr first = Conditional();
    if (!tokens_.AtOperator(",")) return first;
    ExprPtr tuple = Node(ExprKind::kTuple);
    Adopt(tuple, std::move(first));
    while (context_.ok() && tokens_.TakeOperator(",")) {
      if (AtTupleEnd()) break;
      Adopt(tuple, Conditional());
    }
    return tuple;
  }

  ExprPtr Conditional() {
    DepthGuard guard(context_, context_.limits().parse_depth);
    ExprPtr value = Or();
    while (context_.ok() && tokens_.TakeName("if")) {
      ExprPtr node = Node(ExprKind::kConditional);
      Adopt(node, Or());
      Adopt(node, std::move(value));
      Adopt(node, tokens_.TakeName("else") ? Conditional() : nullptr);
      value = std::move(node);
    }
    return value;
  }

  ExprPtr Or() {
    ExprPtr left = And();
    while (context_.ok() && tokens_.TakeName("or")) left = Pair(ExprKind::kOr, "", std::move(left), And());
    return left;
  }

  ExprPtr Filters(ExprPtr input, bool first_without_bar) {
    while (context_.ok() && (first_without_bar || tokens_.TakeOperator("|"))) {
      first_without_bar = false;
      ExprPtr node = Node(ExprKind::kFilter);
      Adopt(node, std::move(input));
      node->name = DottedName();
      if (tokens_.TakeOperator("(")) Arguments(node);
      input = std::move(node);
    }
    return input;
  }

 private:
  ExprPtr Node(ExprKind kind) {
    auto node = std::make_unique<Expr>();
    node->kind = kind;
    node->line = tokens_.line();
    return node;
  }

  // Long chains grow a tree without recursion here, so the height is bounded as well.
  void Adopt(ExprPtr& parent, ExprPtr child) {
    if (child != nullptr) parent->height = std::max(parent->height, child->height + 1);
    if (parent->height > context_.limits().parse_depth) {
      context_.Exceeded("nested expressions", context_.limits().parse_depth);
    }
    parent->children.push_back(std::move(child));
  }

  ExprPtr Pair(ExprKind kind, std::string name, ExprPtr left, ExprPtr right) {
    ExprPtr node = Node(kind);
    node->name = std::move(name);
    Adopt(node, std::move(left));
    Adopt(node, std::move(right));
    return node;
  }

  bool AtTupleEnd() const {
    return tokens_.At(TokenKind::kBlockEnd) || tokens_.At(TokenKind::kVariableEnd) || tokens_.AtOperator(")");
  }

  ExprPtr And() {
    ExprPtr left = Not();
    while (context_.ok() && tokens_.TakeName("and")) left = Pair(ExprKind::kAnd, "", std::move(left), Not());
    return left;
  }

  ExprPtr Not() {
    if (!tokens_.AtName("not")) return Compare();
    DepthGuard guard(context_, context_.limits().parse_depth);
    ExprPtr node = Node(ExprKind::kNot);
    tokens_.Next();
    if (context_.ok()) Adopt(node, Not());
    return node;
  }

  std::string TakeComparison() {
    for (const char* op : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (tokens_.TakeOperator(op)) return op;
    }
    if (tokens_.TakeName("in")) return "in";
    if (tokens_.AtName("not") && tokens_.Peek(1).kind == TokenKind::kName && tokens_.Peek(1).text == "in") {
      tokens_.Next();
      tokens_.Next();
      return "not in";
    }
    return "";
  }

  ExprPtr Compare() {
    ExprPtr left = Sum();
    std::string op = TakeComparison();
    if (op.empty()) return left;
    ExprPtr node = Node(ExprKind::kCompare);
    Adopt(node, std::move(left));
    for (; context_.ok() && !op.empty(); op = TakeComparison()) {
      node->operators.push_back(op);
      Adopt(node, Sum());
    }
    return node;
  }

  template <typename Operand>
  ExprPtr LeftAssociative(std::initializer_list<const char*> operators, Operand operand) {
    ExprPtr left = operand();
    for (bool found = true; found && context_.ok();) {
      found = false;
      for (const char* op : operators) {
        if (!tokens_.TakeOperator(op)) continue;
        left = Pair(ExprKind::kBinary, op, std::move(left), operand());
        found = true;
        break;
      }
    }
    return left;
  }

  ExprPtr Sum() {
    return LeftAssociative({"+", "-"}, [this] { return Concatenation(); });
  }
  ExprPtr Concatenation() {
    return LeftAssociative({"~"}, [this] { return Product(); });
  }
  ExprPtr Product() {
    return LeftAssociative({"*", "//", "/", "%"}, [this] { return Power(); });
  }
  ExprPtr Power() {
    return LeftAssociative({"**"}, [this] { return Unary(true); });
  }

  ExprPtr Unary(bool with_filters) {
    DepthGuard guard(context_, context_.limits().parse_depth);
    if (!context_.ok()) return Node(ExprKind::kLiteral);
    ExprPtr value;
    if (tokens_.AtOperator("-") || tokens_.AtOperator("+")) {
      value = Node(tokens_.AtOperator("-") ? ExprKind::kNegate : ExprKind::kPlus);
      tokens_.Next();
      Adopt(value, Unary(false));
    } else {
      value = Primary();
    }
    value = Postfix(std::move(value));
    return with_filters ? FiltersAndTests(std::move(value)) : std::move(value);
  }

  ExprPtr FiltersAndTests(ExprPtr value) {
    while (context_.ok()) {
      if (tokens_.AtOperator("|")) {
        value = Filters(std::move(value), false);
      } else if (tokens_.AtName("is")) {
        value = Test(std::move(value));
      } else if (tokens_.AtOperator("(")) {
        value = Postfix(std::move(value));
      } else {
        break;
      }
    }
    return value;
  }

  ExprPtr Test(ExprPtr input) {
    tokens_.Next();
    const bool negated = tokens_.TakeName("not");
    ExprPtr node = Node(ExprKind::kTest);
    Adopt(node, std::move(input));
    node->name = DottedName();
    if (tokens_.TakeOperator("(")) {
      Arguments(node);
    } else if (AtTestArgument()) {
      Adopt(node, Postfix(Primary()));
    }
    if (!negated) return node;
    ExprPtr inverse = Node(ExprKind::kNot);
    Adopt(inverse, std::move(node));
    return inverse;
  }

  bool AtTestArgument() const {
    const Token& token = tokens_.Peek();
    switch (token.kind) {
      case TokenKind::kString:
      case TokenKind::kInt:
      case TokenKind::kFloat:
        return true;
      case TokenKind::kName:
        return token.text != "else" && token.text != "or" && token.text != "and" && token.text != "is" &&
               token.text != "if" && token.text != "in" && token.text != "not";
      case TokenKind::kOperator:
        return token.text == "[" || token.text == "{";
      default:
        return false;
    }
  }

  std::string DottedName() {
    std::string name = tokens_.ExpectName();
    while (context_.ok() && tokens_.TakeOperator(".")) name.append(".").append(tokens_.ExpectName());
    return name;
  }

  // After "(": appends the arguments and takes ")".
  void Arguments(ExprPtr& call) {
    while (context_.ok() && !tokens_.AtOperator(")")) {
      if (tokens_.AtOperator("*") || tokens_.AtOperator("**"))
        return context_.Fail("unpacked arguments are not supported");
      if (tokens_.At(TokenKind::kName) && tokens_.Peek(1).kind == TokenKind::kOperator &&
          tokens_.Peek(1).text == "=") {
        std::string name = tokens_.Next().text;
        tokens_.Next();
        ExprPtr value = Conditional();
        call->height = std::max(call->height, value->height + 1);
        call->named.emplace_back(std::move(name), std::move(value));
      } else {
        if (!call->named.empty()) return context_.Fail("a positional argument after a named one");
        Adopt(call, Conditional());
      }
      if (!tokens_.TakeOperator(",")) break;
    }
    tokens_.ExpectOperator(")");
  }

  ExprPtr Postfix(ExprPtr value) {
    while (context_.ok()) {
      if (tokens_.TakeOperator(".")) {
        value = Attribute(std::move(value));
      } else if (tokens_.TakeOperator("[")) {
        value = Subscript(std::move(value));
      } else if (tokens_.TakeOperator("(")) {
        ExprPtr node = Node(ExprKind::kCall);
        Adopt(node, std::move(value));
        Arguments(node);
        value = std::move(node);
      } else {
        break;
      }
    }
    return value;
  }

  ExprPtr Attribute(ExprPtr object) {
    if (tokens_.At(TokenKind::kInt)) {
      ExprPtr node = Node(ExprKind::kSubscript);
      Adopt(node, std::move(object));
      Adopt(node, Primary());
      return node;
    }
    ExprPtr node = Node(ExprKind::kAttribute);
    Adopt(node, std::move(object));
    node->name = tokens_.ExpectName();
    return node;
  }

  ExprPtr Subscript(ExprPtr object) {
    ExprPtr node = Node(ExprKind::kSubscript);
    Adopt(node, std::move(object));
    const auto at_bound_end = [this] { return tokens_.AtOperator(":") || tokens_.AtOperator("]"); };
    Adopt(node, at_bound_end() ? nullptr : Conditional());
    if (tokens_.AtOperator(":")) {
      node->kind = ExprKind::kSlice;
      while (context_.ok() && node->children.size() < 4 && tokens_.TakeOperator(":")) {
        Adopt(node, at_bound_end() ? nullptr : Conditional());
      }
      while (node->children.size() < 4) node->children.push_back(nullptr);
    } else if (node->children[1] == nullptr) {
      tokens_.Unexpected("an index");
    }
    tokens_.ExpectOperator("]");
    return node;
  }

  ExprPtr Primary() {
    ExprPtr node = Node(ExprKind::kLiteral);
    switch (tokens_.Peek().kind) {
      case TokenKind::kString: {
        std::string text;
        while (tokens_.At(TokenKind::kString)) text += tokens_.Next().text;
        node->value = Value::FromTemplate(text);
        return node;
      }
      case TokenKind::kInt: {
        int64_t number = 0;
        if (!absl::SimpleAtoi(tokens_.Next().text, &number)) context_.Fail("a whole number beyond 64 bits");
        node->value = Value(number);
        return node;
      }
      case TokenKind::kFloat: {
        double number = 0;
        if (!absl::SimpleAtod(tokens_.Next().text, &number)) context_.Fail("bad number");
        node->value = Value(number);
        return node;
      }
      case TokenKind::kName:
        return NameOrConstant(std::move(node));
      case TokenKind::kOperator:
        return Bracket(std::move(node));
      default:
        tokens_.Unexpected("an expression");
        return node;
    }
  }

  ExprPtr NameOrConstant(ExprPtr node) {
    const std::string name = tokens_.Next().text;
    if (name == "true" || name == "True") {
      node->value = Value(true);
    } else if (name == "false" || name == "False") {
      node->value = Value(false);
    } else if (name == "none" || name == "None") {
      node->value = Value(None{});
    } else {
      node->kind = ExprKind::kName;
      node->name = name;
    }
    return node;
  }

  ExprPtr Bracket(ExprPtr node) {
    if (tokens_.TakeOperator("(")) {
      if (tokens_.TakeOperator(")")) {
        node->kind = ExprKind::kTuple;
        return node;
      }
      node = Tuple();
      tokens_.ExpectOperator(")");
    } else if (tokens_.TakeOperator("[")) {
      node->kind = ExprKind::kList;
      while (context_.ok() && !tokens_.AtOperator("]")) {
        Adopt(node, Conditional());
        if (!tokens_.TakeOperator(",")) break;
      }
      tokens_.ExpectOperator("]");
    } else if (tokens_.TakeOperator("{")) {
      node->kind = ExprKind::kDict;
      while (context_.ok() && !tokens_.AtOperator("}")) {
        Adopt(node, Conditional());
        tokens_.ExpectOperator(":");
        Adopt(node, Conditional());
        if (!tokens_.TakeOperator(",")) break;
      }
      tokens_.ExpectOperator("}");
    } else {
      tokens_.Unexpected("an expression");
    }
    return node;
  }

  TokenStream& tokens_;
  Context& context_;
};

}  // namespace

ExprPtr ParseExpression(TokenStream& tokens) { return ExpressionParser(tokens).Conditional(); }
ExprPtr ParseTuple(TokenStream& tokens) { return ExpressionParser(tokens).Tuple(); }
ExprPtr ParseWithoutConditional(TokenStream& tokens) { return ExpressionParser(tokens).Or(); }
ExprPtr ParseFilters(TokenStream& tokens, ExprPtr input) {
  const bool first_without_bar = input == nullptr && !tokens.AtOperator("|");
  return ExpressionParser(tokens).Filters(std::move(input), first_without_bar);
}

}  // namespace orrery::jinja
