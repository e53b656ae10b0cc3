#include "server/text/jinja/text.h"

#include <algorithm>
#include <utility>

#include "server/text/utf8.h"

namespace orrery::jinja {
namespace {

size_t PreviousStart(std::string_view text, size_t end) {
  do {
    --end;
  } while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  return end;
}

bool Strips(std::string_view text, size_t start, const std::string* characters) {
  const CodePoint c = DecodeValidUtf8(text.data() + start);
  if (characters == nullptr) return IsSpace(c.value);
  // Valid UTF-8 in valid UTF-8: a match of the whole sequence is a match of a character.
  return std::string_view(*characters).find(text.substr(start, c.length)) != std::string_view::npos;
}

}  // namespace

Text::Text(std::string bytes, bool from_template) : bytes_(std::move(bytes)) {
  if (!bytes_.empty()) runs_.push_back({bytes_.size(), from_template});
}

void Text::Append(std::string_view bytes, bool from_template) {
  if (bytes.empty()) return;
  bytes_.append(bytes);
  if (!runs_.empty() && runs_.back().from_template == from_template) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), from_template});
  }
}

void Text::AppendPart(const Text& other, size_t begin, size_t end) {
  auto run = std::upper_bound(other.runs_.begin(), other.runs_.end(), begin,
                              [](size_t position, const Run& r) { return position < r.end; });
  for (; begin < end; ++run) {
    const size_t stop = std::min(end, run->end);
    Append(std::string_view(other.bytes_).substr(begin, stop - begin), run->from_template);
    begin = stop;
  }
}

Text Text::Part(size_t begin, size_t end) const {
  Text part;
  part.AppendPart(*this, begin, end);
  return part;
}

bool Text::from_template_at(size_t position) const {
  return std::upper_bound(runs_.begin(), runs_.end(), position,
                          [](size_t p, const Run& r) { return p < r.end; })
      ->from_template;
}

bool IsSpace(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

size_t OffsetOfCodePoint(std::string_view text, size_t index) {
  size_t offset = 0;
  while (index > 0 && offset < text.size()) {
    offset += DecodeValidUtf8(text.data() + offset).length;
    --index;
  }
  return offset;
}

size_t CountCodePoints(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

Text Strip(const Text& text, const std::string* characters, bool left, bool right) {
  const std::string_view bytes = text.bytes();
  size_t begin = 0, end = bytes.size();
  while (left && begin < end && Strips(bytes, begin, characters))
    begin += DecodeValidUtf8(bytes.data() + begin).length;
  while (right && begin < end) {
    const size_t start = PreviousStart(bytes, end);
    if (!Strips(bytes, start, characters)) break;
    end = start;
  }
  return text.Part(begin, end);
}

}  // namespace orrery::jinja
