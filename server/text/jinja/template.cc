#include "server/text/jinja/template.h"

#include <utility>

#include "server/text/jinja/interpreter.h"
#include "server/text/jinja/parser.h"
#include "server/text/utf8.h"

namespace orrery::jinja {

absl::StatusOr<Template> Template::Parse(std::string_view source, const Limits& limits) {
  if (FindInvalidUtf8(source) != std::string_view::npos) {
    return absl::InvalidArgumentError("chat template: the source is not valid UTF-8");
  }
  Context context(limits);
  auto body = std::make_shared<const Body>(ParseTemplate(source, context));
  if (!context.ok()) return context.status();
  return Template(std::move(body), limits);
}

absl::StatusOr<Text> Template::Render(Map variables, const RenderSettings& settings) const {
  Context context(limits_);
  Text text = Interpreter(context, settings, std::move(variables)).Run(*body_);
  if (!context.ok()) return context.status();
  return text;
}

}  // namespace orrery::jinja
