#ifndef ORRERY_SERVER_TEXT_CHAR_CLASS_H_
#define ORRERY_SERVER_TEXT_CHAR_CLASS_H_

// Classes of Unicode code points as the pre-tokenisation patterns name them, plus what normalisation needs to
// know, in one two-level table (about 100 KB) made from utf8proc's data on first use. A look-up is two loads.

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "server/text/utf8.h"

namespace orrery {

using ClassMask = uint16_t;

inline constexpr ClassMask kLetter = 1 << 0;       // \p{L}
inline constexpr ClassMask kNumber = 1 << 1;       // \p{N}
inline constexpr ClassMask kMark = 1 << 2;         // \p{M}
inline constexpr ClassMask kPunctuation = 1 << 3;  // \p{P}
inline constexpr ClassMask kSymbol = 1 << 4;       // \p{S}
inline constexpr ClassMask kSpace = 1 << 5;        // \s: the White_Space property
inline constexpr ClassMask kNewline = 1 << 6;      // [\r\n]
inline constexpr ClassMask kWord = 1 << 7;         // \w
// The code point can change, or change what stands before it, in this normal form; all others are copied.
inline constexpr ClassMask kUnstableNfc = 1 << 8;
inline constexpr ClassMask kUnstableNfkc = 1 << 9;
inline constexpr ClassMask kUnstableNfd = 1 << 10;
inline constexpr ClassMask kUnstableNfkd = 1 << 11;

class CharClasses {
 public:
  static const CharClasses& Get();

  ClassMask Of(uint32_t code_point) const {
    return blocks_[static_cast<size_t>(index_[code_point >> 8]) << 8 | (code_point & 0xFF)];
  }

 private:
  CharClasses();

  std::array<uint16_t, 0x1100> index_;
  std::vector<ClassMask> blocks_;  // [distinct blocks, 256]
};

// One character of a valid text with its class.
struct ClassedChar {
  uint32_t value = 0;
  uint32_t length = 0;  // 0 at the end of the text
  ClassMask mask = 0;

  bool Is(ClassMask any_of) const { return (mask & any_of) != 0; }
  bool at_end() const { return length == 0; }
};

inline ClassedChar ReadChar(const CharClasses& classes, std::string_view text, size_t pos) {
  if (pos >= text.size()) return {};
  const CodePoint c = DecodeValidUtf8(text.data() + pos);
  return {c.value, c.length, classes.Of(c.value)};
}

// First position at or after `pos` whose character has no class of `any_of`.
inline size_t SkipRun(const CharClasses& classes, std::string_view text, size_t pos, ClassMask any_of) {
  for (ClassedChar c; (c = ReadChar(classes, text, pos)).Is(any_of);) pos += c.length;
  return pos;
}

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_CHAR_CLASS_H_
