#include "server/text/jinja/parser.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "server/text/jinja/expression_parser.h"
#include "server/text/jinja/lexer.h"
#include "server/text/jinja/token_stream.h"

namespace orrery::jinja {
namespace {

using StmtPtr = std::unique_ptr<Stmt>;

class StatementParser {
 public:
  StatementParser(TokenStream& tokens, Context& context) : tokens_(tokens), context_(context) {}

  // Statements up to a tag whose word is in `ends`, which is left at the cursor after "{%"; to the end
  // without any.
  Body Statements(const std::vector<std::string_view>& ends) {
    DepthGuard guard(context_, context_.limits().parse_depth);
    Body body;
    while (context_.ok()) {
      if (tokens_.At(TokenKind::kEnd)) {
        if (!ends.empty()) tokens_.Unexpected(ends.back());
        break;
      }
      if (tokens_.At(TokenKind::kData)) {
        body.push_back(Node(StmtKind::kData));
        body.back()->value = Value::FromTemplate(tokens_.Next().text);
      } else if (tokens_.At(TokenKind::kVariableBegin)) {
        tokens_.Next();
        body.push_back(Node(StmtKind::kOutput));
        body.back()->expression = ParseTuple(tokens_);
        tokens_.Expect(TokenKind::kVariableEnd, "'}}'");
      } else {
        tokens_.Expect(TokenKind::kBlockBegin, "a tag");
        const std::string& word = tokens_.Peek().text;
        if (tokens_.At(TokenKind::kName) && std::find(ends.begin(), ends.end(), word) != ends.end())
          return body;
        body.push_back(Tag());
      }
    }
    return body;
  }

 private:
  StmtPtr Node(StmtKind kind) {
    auto node = std::make_unique<Stmt>();
    node->kind = kind;
    node->line = tokens_.line();
    return node;
  }

  void BlockEnd() { tokens_.Expect(TokenKind::kBlockEnd, "'%}'"); }

  // The body of a tag just read, through its end tag.
  Body BodyUntil(std::string_view end) {
    BlockEnd();
    Body body = Statements({end});
    tokens_.Next();
    BlockEnd();
    return body;
  }

  // One whose text is captured: a loop around it cannot be left from inside.
  Body CapturedBodyUntil(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Body body = BodyUntil(end);
    loops_ = loops;
    return body;
  }

  StmtPtr Tag() {
    const std::string word = tokens_.ExpectName();
    if (word == "if") return If();
    if (word == "for") return For();
    if (word == "set") return Set();
    if (word == "macro") return MacroTag();
    if (word == "with") return With();
    StmtPtr node = Node(StmtKind::kScopeless);
    if (word == "filter") {
      node->kind = StmtKind::kFilter;
      node->expression = ParseFilters(tokens_, nullptr);
      node->body = CapturedBodyUntil("endfilter");
    } else if (word == "generation") {
      node->body = BodyUntil("endgeneration");
    } else if ((word == "break" || word == "continue") && loops_ > 0) {
      node->kind = word == "break" ? StmtKind::kBreak : StmtKind::kContinue;
      BlockEnd();
    } else {
      context_.Fail("the tag '", word.substr(0, 40), "' is not supported here");
    }
    return node;
  }

  StmtPtr If() {
    StmtPtr node = Node(StmtKind::kIf);
    node->branches.push_back({ParseTuple(tokens_), {}});
    for (;;) {
      BlockEnd();
      const bool last = node->branches.back().condition == nullptr;
      node->branches.back().body = last ? Statements({"endif"}) : Statements({"elif", "else", "endif"});
      if (!context_.ok()) return node;
      const std::string word = tokens_.Next().text;
      if (word == "endif") break;
      node->branches.push_back({word == "elif" ? ParseTuple(tokens_) : nullptr, {}});
    }
    BlockEnd();
    return node;
  }

  StmtPtr For() {
    StmtPtr node = Node(StmtKind::kFor);
    node->target = ParseTarget();
    if (!tokens_.TakeName("in")) tokens_.Unexpected("'in'");
    node->expression = ParseWithoutConditional(tokens_);
    if (tokens_.TakeName("if")) node->condition = ParseExpression(tokens_);
    if (tokens_.AtName("recursive")) context_.Fail("recursive loops are not supported");
    BlockEnd();
    ++loops_;
    node->body = Statements({"else", "endfor"});
    --loops_;
    if (!context_.ok()) return node;
    if (tokens_.Next().text == "else") {
      BlockEnd();
      node->else_body = Statements({"endfor"});
      tokens_.Next();
    }
    BlockEnd();
    return node;
  }

  // name, name.attribute, "a, b" or "(a, b)".
  Target ParseTarget() {
    Target target;
    const bool bracket = tokens_.TakeOperator("(");
    target.names.push_back(tokens_.ExpectName());
    if (!bracket && tokens_.TakeOperator(".")) {
      target.attribute = tokens_.ExpectName();
      return target;
    }
    while (context_.ok() && tokens_.TakeOperator(",")) {
      target.unpack = true;
      if (!tokens_.At(TokenKind::kName) || tokens_.AtName("in")) break;
      target.names.push_back(tokens_.ExpectName());
    }
    if (bracket) tokens_.ExpectOperator(")");
    return target;
  }

  StmtPtr Set() {
    StmtPtr node = Node(StmtKind::kSet);
    node->target = ParseTarget();
    if (tokens_.TakeOperator("=")) {
      node->expression = ParseTuple(tokens_);
      BlockEnd();
      return node;
    }
    node->kind = StmtKind::kSetBlock;
    if (tokens_.AtOperator("|")) node->expression = ParseFilters(tokens_, nullptr);
    node->body = CapturedBodyUntil("endset");
    return node;
  }

  // "name = value, name = value" between the cursor and `close`; values may be absent for a macro.
  std::vector<std::pair<std::string, ExprPtr>> Assignments(bool need_values) {
    std::vector<std::pair<std::string, ExprPtr>> all;
    while (context_.ok() && tokens_.At(TokenKind::kName)) {
      std::string name = tokens_.ExpectName();
      ExprPtr value;
      if (tokens_.TakeOperator("=")) {
        value = ParseExpression(tokens_);
      } else if (need_values) {
        tokens_.Unexpected("'='");
      }
      all.emplace_back(std::move(name), std::move(value));
      if (!tokens_.TakeOperator(",")) break;
    }
    return all;
  }

  StmtPtr MacroTag() {
    StmtPtr node = Node(StmtKind::kMacro);
    node->macro = std::make_unique<Macro>();
    node->macro->name = tokens_.ExpectName();
    tokens_.ExpectOperator("(");
    node->macro->parameters = Assignments(false);
    tokens_.ExpectOperator(")");
    node->macro->body = CapturedBodyUntil("endmacro");
    return node;
  }

  StmtPtr With() {
    StmtPtr node = Node(StmtKind::kWith);
    node->assignments = Assignments(true);
    node->body = BodyUntil("endwith");
    return node;
  }

  TokenStream& tokens_;
  Context& context_;
  int loops_ = 0;  // enclosing the cursor, that it may leave
};

}  // namespace

Body ParseTemplate(std::string_view source, Context& context) {
  if (source.size() > context.limits().source_bytes) {
    context.Exceeded("bytes of source", static_cast<int64_t>(context.limits().source_bytes));
    return {};
  }
  TokenStream tokens(Tokenize(source, context), context);
  if (!context.ok()) return {};
  return StatementParser(tokens, context).Statements({});
}

}  // namespace orrery::jinja
