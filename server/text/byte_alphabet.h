#ifndef ORRERY_SERVER_TEXT_BYTE_ALPHABET_H_
#define ORRERY_SERVER_TEXT_BYTE_ALPHABET_H_

// The alphabet in which byte-level vocabularies are written: the 256 bytes as printable characters. Printable
// bytes of Latin-1 stand for themselves, the other 68 (white space, controls, 0xAD) for U+0100, U+0101... in
// order.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace orrery {

// The bytes that `piece` (valid UTF-8) spells; nullopt if a character of it is not of the alphabet.
std::optional<std::string> BytesOfAlphabet(std::string_view piece);

// The character of one byte, as UTF-8.
std::string AlphabetOfByte(uint8_t byte);

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_BYTE_ALPHABET_H_
