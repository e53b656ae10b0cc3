#ifndef ORRERY_SERVER_TEXT_UTF8_H_
#define ORRERY_SERVER_TEXT_UTF8_H_

// UTF-8: checking, decoding of text known to be valid, and a stream that turns arbitrary bytes into valid
// text. "Valid" is the Unicode standard's table 3-7: no overlong forms, no surrogates, nothing above
// U+10FFFF.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace orrery {

inline constexpr uint32_t kReplacementCharacter = 0xFFFD;

struct CodePoint {
  uint32_t value = 0;
  uint32_t length = 0;  // bytes, 1..4
};

// The code point that starts at `p`; the text must be valid UTF-8.
inline CodePoint DecodeValidUtf8(const char* p) {
  const auto b0 = static_cast<unsigned char>(p[0]);
  const auto tail = [p](int i) { return static_cast<uint32_t>(static_cast<unsigned char>(p[i]) & 0x3F); };
  if (b0 < 0x80) return {b0, 1};
  if (b0 < 0xE0) return {(b0 & 0x1Fu) << 6 | tail(1), 2};
  if (b0 < 0xF0) return {(b0 & 0x0Fu) << 12 | tail(1) << 6 | tail(2), 3};
  return {(b0 & 0x07u) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4};
}

// Offset of the first byte that is not part of valid UTF-8, or npos.
size_t FindInvalidUtf8(std::string_view text);

void AppendUtf8(uint32_t code_point, std::string* out);

// Bytes in, valid UTF-8 out, independent of how the bytes are cut into calls. The bytes of an unfinished
// character are held back; every maximal ill-formed part becomes one U+FFFD (the practice of the Unicode
// standard, 3.9).
class Utf8Stream {
 public:
  void Append(std::string_view bytes, std::string* out);
  // The text is over: an unfinished character becomes U+FFFD.
  void Finish(std::string* out);
  bool holds_bytes() const { return num_held_ > 0; }

 private:
  char held_[4];
  int num_held_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_UTF8_H_
