#ifndef ORRERY_SERVER_TEXT_JINJA_TOKEN_STREAM_H_
#define ORRERY_SERVER_TEXT_JINJA_TOKEN_STREAM_H_

// A cursor over the tokens of a template, shared by the parsers of statements and of expressions.

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/text/jinja/context.h"
#include "server/text/jinja/lexer.h"

namespace orrery::jinja {

class TokenStream {
 public:
  // `tokens` ends with kEnd, which is never passed.
  TokenStream(std::vector<Token> tokens, Context& context) : context_(context), tokens_(std::move(tokens)) {}

  Context& context() { return context_; }
  const Token& Peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  int line() const { return Peek().line; }

  Token Next() {
    Token token = Peek();
    context_.set_line(token.line);
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool At(TokenKind kind) const { return Peek().kind == kind; }
  bool AtOperator(std::string_view text) const { return At(TokenKind::kOperator) && Peek().text == text; }
  bool AtName(std::string_view text) const { return At(TokenKind::kName) && Peek().text == text; }
  bool TakeOperator(std::string_view text) { return AtOperator(text) && (Next(), true); }
  bool TakeName(std::string_view text) { return AtName(text) && (Next(), true); }

  void ExpectOperator(std::string_view text) {
    if (!TakeOperator(text)) Unexpected(text);
  }
  void Expect(TokenKind kind, std::string_view what) {
    if (!At(kind)) return Unexpected(what);
    Next();
  }
  std::string ExpectName() {
    if (At(TokenKind::kName)) return Next().text;
    Unexpected("a name");
    return "";
  }
  void Unexpected(std::string_view wanted) {
    context_.set_line(line());
    context_.Fail("expected ", wanted, " before ", Describe());
  }

 private:
  std::string Describe() const {
    switch (Peek().kind) {
      case TokenKind::kData:
        return "text";
      case TokenKind::kBlockBegin:
        return "'{%'";
      case TokenKind::kVariableBegin:
        return "'{{'";
      case TokenKind::kBlockEnd:
      case TokenKind::kVariableEnd:
        return "the end of the tag";
      case TokenKind::kEnd:
        return "the end of the template";
      default:
        return std::string("'").append(Peek().text.substr(0, 40)).append("'");
    }
  }

  Context& context_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

}  // namespace orrery::jinja

#endif  // ORRERY_SERVER_TEXT_JINJA_TOKEN_STREAM_H_
