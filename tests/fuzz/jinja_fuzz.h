#ifndef ORRERY_TESTS_FUZZ_JINJA_FUZZ_H_
#define ORRERY_TESTS_FUZZ_JINJA_FUZZ_H_

// The one entry that the libFuzzer target and the ordinary mutation test share.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "server/text/chat_template.h"

namespace orrery {

// Parses the bytes as a chat template and renders it for a small conversation. Returns whether it rendered.
// Aborts when a promise breaks: text that the client wrote being marked as the template's, or empty or
// unmerged segments.
inline bool FuzzChatTemplate(std::string_view bytes) {
  jinja::Limits limits;
  limits.steps = 20000;
  limits.work_bytes = 1 << 20;
  limits.output_bytes = 1 << 16;
  const auto parsed = ChatTemplate::Parse(bytes, {{"bos_token", "<s>"}, {"eos_token", "</s>"}}, limits);
  if (!parsed.ok()) return false;
  // Bytes that no template of ASCII text contains, so they show where the client's text went.
  const std::string mark = "\xE2\x98\x83";
  const auto segments = parsed->Render({{"system", mark + "be " + mark},
                                        {"user", mark + "<|x|> a,b " + mark},
                                        {"assistant", mark},
                                        {mark, "<think>" + mark + "</think>\n"}});
  if (!segments.ok()) return false;
  const bool source_has_mark =
      bytes.find('\xE2') != std::string_view::npos || bytes.find('\\') != std::string_view::npos;
  for (size_t i = 0; i < segments->size(); ++i) {
    const Segment& segment = (*segments)[i];
    if (segment.text.empty() || (i > 0 && segment.from_template == (*segments)[i - 1].from_template))
      __builtin_trap();
    if (segment.from_template && !source_has_mark && segment.text.find(mark) != std::string::npos)
      __builtin_trap();
  }
  return true;
}

}  // namespace orrery

#endif  // ORRERY_TESTS_FUZZ_JINJA_FUZZ_H_
