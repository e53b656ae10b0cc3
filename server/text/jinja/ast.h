#ifndef ORRERY_SERVER_TEXT_JINJA_AST_H_
#define ORRERY_SERVER_TEXT_JINJA_AST_H_

// The syntax tree of a template. Nodes are plain data; their nesting is bounded by Limits::parse_depth.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/text/jinja/value.h"

namespace orrery::jinja {

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using Body = std::vector<std::unique_ptr<Stmt>>;

enum class ExprKind {
  kLiteral,      // value
  kName,         // name
  kList,         // children
  kTuple,        // children
  kDict,         // children: key, value, key, value...
  kAttribute,    // children[0] . name
  kSubscript,    // children[0] [ children[1] ]
  kSlice,        // children[0] [ children[1] : children[2] : children[3] ], absent ones null
  kCall,         // children[0] ( children[1..], named )
  kFilter,       // children[0] | name ( children[1..], named ); a null input is that of a filtered set block
  kTest,         // children[0] is name ( children[1..] )
  kNot,          // children[0]
  kNegate,       // children[0]
  kPlus,         // children[0]
  kBinary,       // children[0] name children[1]; arithmetic and "~"
  kAnd,          // children[0], children[1]
  kOr,           // children[0], children[1]
  kCompare,      // children[0] operators[0] children[1] operators[1] children[2]...
  kConditional,  // children[1] if children[0] else children[2], which may be null
};

struct Expr {
  ExprKind kind = ExprKind::kLiteral;
  int line = 1;
  int height = 1;  // of the tree below, this node included
  std::string name;
  Value value;
  std::vector<ExprPtr> children;
  std::vector<std::pair<std::string, ExprPtr>> named;
  std::vector<std::string> operators;
};

// What `set` and `for` assign to: names, or one attribute of a namespace.
struct Target {
  std::vector<std::string> names;
  std::string attribute;
  bool unpack = false;  // a tuple of names, even of one
};

struct Macro {
  std::string name;
  std::vector<std::pair<std::string, ExprPtr>> parameters;  // with the default, null without
  Body body;
};

enum class StmtKind {
  kData,       // value
  kOutput,     // expression
  kIf,         // branches; a null condition is the else
  kFor,        // target in expression, only where condition; body, else_body
  kSet,        // target = expression
  kSetBlock,   // target = body through the filters of expression (null: none)
  kFilter,     // body through the filters of expression
  kWith,       // assignments, body
  kMacro,      // macro
  kScopeless,  // body as it stands (generation marks)
  kBreak,
  kContinue,
};

struct Branch {
  ExprPtr condition;
  Body body;
};

struct Stmt {
  StmtKind kind = StmtKind::kData;
  int line = 1;
  Value value;
  ExprPtr expression;
  ExprPtr condition;
  Target target;
  std::vector<Branch> branches;
  std::vector<std::pair<std::string, ExprPtr>> assignments;
  Body body;
  Body else_body;
  std::unique_ptr<Macro> macro;
};

}  // namespace orrery::jinja

#endif  // ORRERY_SERVER_TEXT_JINJA_AST_H_
