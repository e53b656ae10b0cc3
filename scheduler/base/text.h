// Messages from parts. Debian's abseil is built with its own string_view, which does not take the standard
// one; these few functions do.
#ifndef ORRERY_SCHEDULER_BASE_TEXT_H_
#define ORRERY_SCHEDULER_BASE_TEXT_H_

#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace orrery {

inline void AppendPart(std::string_view part, std::string* out) { out->append(part); }
template <typename Number>
requires std::is_arithmetic_v<Number>
void AppendPart(Number number, std::string* out) {
  char digits[64];
  const auto end = std::to_chars(digits, digits + sizeof(digits), number).ptr;
  out->append(digits, static_cast<size_t>(end - digits));
}

// All parts (text, integers, reals in their shortest exact form) one after another.
template <typename... Parts>
std::string Cat(const Parts&... parts) {
  std::string text;
  (AppendPart(parts, &text), ...);
  return text;
}

// All of `text` as a number of this type; nothing when it is anything else or out of range.
template <typename Number>
std::optional<Number> ParseNumber(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// The parts between separators; one empty part for an empty text.
inline std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0;;) {
    const size_t end = text.find(separator, begin);
    parts.push_back(text.substr(begin, end - begin));
    if (end == std::string_view::npos) return parts;
    begin = end + 1;
  }
}

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_BASE_TEXT_H_
