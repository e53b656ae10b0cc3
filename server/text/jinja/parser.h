#ifndef ORRERY_SERVER_TEXT_JINJA_PARSER_H_
#define ORRERY_SERVER_TEXT_JINJA_PARSER_H_

#include <string_view>

#include "server/text/jinja/ast.h"
#include "server/text/jinja/context.h"

namespace orrery::jinja {

// The statements of a template. Supported: output, if, for (with a filter, else, break, continue), set
// (names, tuples, namespace attributes, blocks), macro, filter, with, raw, comments, generation marks.
// Inheritance, imports, call blocks and recursive loops are refused by name. On an error the context has
// failed.
Body ParseTemplate(std::string_view source, Context& context);

}  // namespace orrery::jinja

#endif  // ORRERY_SERVER_TEXT_JINJA_PARSER_H_
