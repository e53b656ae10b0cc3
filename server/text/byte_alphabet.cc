#include "server/text/byte_alphabet.h"

#include <array>

#include "server/text/utf8.h"

namespace orrery {
namespace {

constexpr bool StandsForItself(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

struct Tables {
  std::array<uint32_t, 256> char_of_byte{};
  std::array<int16_t, 0x144> byte_of_char{};  // -1: not of the alphabet

  constexpr Tables() {
    for (int16_t& entry : byte_of_char) entry = -1;
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      char_of_byte[byte] = StandsForItself(byte) ? byte : next++;
      byte_of_char[char_of_byte[byte]] = static_cast<int16_t>(byte);
    }
  }
};
constexpr Tables kTables;

}  // namespace

std::optional<std::string> BytesOfAlphabet(std::string_view piece) {
  std::string bytes;
  for (size_t i = 0; i < piece.size();) {
    const CodePoint c = DecodeValidUtf8(piece.data() + i);
    if (c.value >= kTables.byte_of_char.size() || kTables.byte_of_char[c.value] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kTables.byte_of_char[c.value]));
    i += c.length;
  }
  return bytes;
}

std::string AlphabetOfByte(uint8_t byte) {
  std::string out;
  AppendUtf8(kTables.char_of_byte[byte], &out);
  return out;
}

}  // namespace orrery
