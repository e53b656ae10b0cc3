#include "server/text/utf8.h"

#include <cstring>

namespace orrery {
namespace {

enum class Form { kComplete, kUnfinished, kIllFormed };

struct Sequence {
  Form form;
  size_t length;  // complete: of the character; unfinished: all that is left; ill-formed: of the maximal bad
                  // part
};

// Reads one character at the front of a non-empty text.
Sequence ReadSequence(std::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char b0 = byte(0);
  if (b0 < 0x80) return {Form::kComplete, 1};
  if (b0 < 0xC2 || b0 > 0xF4) return {Form::kIllFormed, 1};
  const size_t length = b0 < 0xE0 ? 2 : b0 < 0xF0 ? 3 : 4;
  // The second byte excludes overlong forms, surrogates and values above U+10FFFF.
  unsigned char low = 0x80, high = 0xBF;
  if (b0 == 0xE0) low = 0xA0;
  if (b0 == 0xED) high = 0x9F;
  if (b0 == 0xF0) low = 0x90;
  if (b0 == 0xF4) high = 0x8F;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Form::kUnfinished, i};
    if (byte(i) < low || byte(i) > high) return {Form::kIllFormed, i};
    low = 0x80, high = 0xBF;
  }
  return {Form::kComplete, length};
}

size_t AsciiPrefix(std::string_view text) {
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    if (word & 0x8080808080808080u) break;
  }
  while (i < text.size() && static_cast<unsigned char>(text[i]) < 0x80) ++i;
  return i;
}

}  // namespace

size_t FindInvalidUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    i += AsciiPrefix(text.substr(i));
    if (i == text.size()) break;
    const Sequence sequence = ReadSequence(text.substr(i));
    if (sequence.form != Form::kComplete) return i;
    i += sequence.length;
  }
  return std::string_view::npos;
}

void AppendUtf8(uint32_t c, std::string* out) {
  const auto put = [out](uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  }
}

void Utf8Stream::Append(std::string_view bytes, std::string* out) {
  // First settle what is held, one new byte at a time: it is settled after three at the most.
  while (num_held_ > 0 && !bytes.empty()) {
    held_[num_held_++] = bytes.front();
    const Sequence sequence = ReadSequence({held_, static_cast<size_t>(num_held_)});
    if (sequence.form == Form::kIllFormed) {
      // The held bytes were a good beginning, so exactly the new byte is to blame: it starts afresh below.
      AppendUtf8(kReplacementCharacter, out);
      num_held_ = 0;
      break;
    }
    bytes.remove_prefix(1);
    if (sequence.form == Form::kComplete) {
      out->append(held_, sequence.length);
      num_held_ = 0;
    }
  }
  while (!bytes.empty()) {
    const size_t ascii = AsciiPrefix(bytes);
    out->append(bytes.substr(0, ascii));
    bytes.remove_prefix(ascii);
    if (bytes.empty()) return;
    const Sequence sequence = ReadSequence(bytes);
    if (sequence.form == Form::kUnfinished) {
      std::memcpy(held_, bytes.data(), bytes.size());
      num_held_ = static_cast<int>(bytes.size());
      return;
    }
    if (sequence.form == Form::kComplete) {
      out->append(bytes.substr(0, sequence.length));
    } else {
      AppendUtf8(kReplacementCharacter, out);
    }
    bytes.remove_prefix(sequence.length);
  }
}

void Utf8Stream::Finish(std::string* out) {
  if (num_held_ > 0) AppendUtf8(kReplacementCharacter, out);
  num_held_ = 0;
}

}  // namespace orrery
