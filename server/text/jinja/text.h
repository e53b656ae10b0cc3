#ifndef ORRERY_SERVER_TEXT_JINJA_TEXT_H_
#define ORRERY_SERVER_TEXT_JINJA_TEXT_H_

// A string that remembers, byte by byte, who wrote it: the template or the request. Only what the template
// wrote may become a special token, so slices, concatenations and filters carry the mark along; what is
// derived in a way that loses track of single bytes counts as the request's. Texts are valid UTF-8.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace orrery::jinja {

class Text {
 public:
  // A stretch of bytes of one writer that ends before `end`. Runs are not empty and neighbours differ.
  struct Run {
    size_t end = 0;
    bool from_template = false;
  };

  Text() = default;
  Text(std::string bytes, bool from_template);

  const std::string& bytes() const { return bytes_; }
  const std::vector<Run>& runs() const { return runs_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  // True when the template wrote every byte.
  bool all_from_template() const { return runs_.empty() || (runs_.size() == 1 && runs_[0].from_template); }

  void Append(std::string_view bytes, bool from_template);
  void Append(const Text& other) { AppendPart(other, 0, other.size()); }
  // Appends bytes [begin, end) of `other`, which is not this text.
  void AppendPart(const Text& other, size_t begin, size_t end);
  Text Part(size_t begin, size_t end) const;
  bool from_template_at(size_t position) const;

 private:
  std::string bytes_;
  std::vector<Run> runs_;
};

// Python's str.isspace for one code point.
bool IsSpace(uint32_t code_point);

// Byte offset of the `index`-th code point, the size when there are fewer. Linear.
size_t OffsetOfCodePoint(std::string_view text, size_t index);
size_t CountCodePoints(std::string_view text);
// The text without the code points at its ends that are in `characters` (white space when null).
Text Strip(const Text& text, const std::string* characters, bool left, bool right);

}  // namespace orrery::jinja

#endif  // ORRERY_SERVER_TEXT_JINJA_TEXT_H_
