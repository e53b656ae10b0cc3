#ifndef ORRERY_SERVER_TEXT_JINJA_LEXER_H_
#define ORRERY_SERVER_TEXT_JINJA_LEXER_H_

// Cuts a template into tokens, with the white-space rules that chat templates are written for: trim_blocks
// and lstrip_blocks are on, one newline at the end of the source is dropped, and '-' or '+' inside a tag
// overrides. Comments and raw blocks are dealt with here.

#include <string>
#include <string_view>
#include <vector>

#include "server/text/jinja/context.h"

namespace orrery::jinja {

enum class TokenKind {
  kData,           // text outside of tags
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kName,
  kString,  // text: the value, escapes resolved
  kInt,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;
  int line = 1;
};

// The tokens, the last being kEnd. On an error (an unclosed tag, an unknown character) the context has
// failed.
std::vector<Token> Tokenize(std::string_view source, Context& context);

}  // namespace orrery::jinja

#endif  // ORRERY_SERVER_TEXT_JINJA_LEXER_H_
