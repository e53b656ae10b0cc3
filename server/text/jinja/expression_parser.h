#ifndef ORRERY_SERVER_TEXT_JINJA_EXPRESSION_PARSER_H_
#define ORRERY_SERVER_TEXT_JINJA_EXPRESSION_PARSER_H_

#include "server/text/jinja/ast.h"
#include "server/text/jinja/token_stream.h"

namespace orrery::jinja {

// Parses one expression at the cursor. Never null; on an error the context has failed. A `tuple` may have
// commas at its top level without brackets ("a, b").
ExprPtr ParseExpression(TokenStream& tokens);
ExprPtr ParseTuple(TokenStream& tokens);
// An expression without the "x if y" form: the iterable of a for statement, whose "if" is a filter of its
// own.
ExprPtr ParseWithoutConditional(TokenStream& tokens);
// "name | name(...)" after a `filter` or a block `set`: a chain of filters over `input`, which may be null.
ExprPtr ParseFilters(TokenStream& tokens, ExprPtr input);

}  // namespace orrery::jinja

#endif  // ORRERY_SERVER_TEXT_JINJA_EXPRESSION_PARSER_H_
