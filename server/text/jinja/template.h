#ifndef ORRERY_SERVER_TEXT_JINJA_TEMPLATE_H_
#define ORRERY_SERVER_TEXT_JINJA_TEMPLATE_H_

// A template of the Jinja language, in the subset and the settings that chat templates use (trim_blocks,
// lstrip_blocks, no escaping, loop controls, immutable values). Both the source and the values may be
// hostile: parsing and rendering are bounded by Limits and never crash.

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/text/jinja/ast.h"
#include "server/text/jinja/call.h"
#include "server/text/jinja/context.h"
#include "server/text/jinja/text.h"
#include "server/text/jinja/value.h"

namespace orrery::jinja {

class Template {
 public:
  // `source` is UTF-8. INVALID_ARGUMENT with the line for what is not understood, RESOURCE_EXHAUSTED beyond a
  // limit.
  static absl::StatusOr<Template> Parse(std::string_view source, const Limits& limits = {});

  // May run on many threads at once. INVALID_ARGUMENT for what the template refuses (raise_exception) or
  // cannot do with these values, RESOURCE_EXHAUSTED beyond a limit. All texts among the variables are valid
  // UTF-8.
  absl::StatusOr<Text> Render(Map variables, const RenderSettings& settings = {}) const;

 private:
  Template(std::shared_ptr<const Body> body, const Limits& limits)
      : body_(std::move(body)), limits_(limits) {}

  std::shared_ptr<const Body> body_;
  Limits limits_;
};

}  // namespace orrery::jinja

#endif  // ORRERY_SERVER_TEXT_JINJA_TEMPLATE_H_
