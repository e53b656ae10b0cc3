#include "scheduler/base/hash.h"

#include <gtest/gtest.h>

#include <string>

namespace orrery {
namespace {

// Keys and messages of the published test vectors: key bytes 00..0f, message bytes 00, 01, 02, ... The
// digests were made by another program: openssl mac -macopt hexkey:000102...0f -macopt size:16 -in MESSAGE
// SIPHASH (and with -macopt c-rounds:1 -macopt d-rounds:3).
constexpr uint64_t kKey0 = 0x0706050403020100u, kKey1 = 0x0f0e0d0c0b0a0908u;

std::string Message(int size) {
  std::string bytes;
  for (int i = 0; i < size; ++i) bytes.push_back(static_cast<char>(i));
  return bytes;
}

std::string Hex(const Hash128& hash) {
  std::string text;
  for (const uint64_t word : {hash.low, hash.high}) {
    for (int i = 0; i < 8; ++i) {
      constexpr char kDigits[] = "0123456789ABCDEF";
      const auto byte = static_cast<uint8_t>(word >> (8 * i));
      text += {kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return text;
}

TEST(SipHash, EqualsTheReference) {
  const std::pair<int, const char*> kCases[] = {
      {0, "A3817F04BA25A8E66DF67214C7550293"},  {8, "3B62A9BA6258F5610F83E264F31497B4"},
      {16, "6EE2A4CA67B054BBFD3315BF85230577"}, {24, "2DB479AE78BD50D8882A8A178A6132AD"},
      {63, "5150D1772F50834A503E069A973FBD7C"},
  };
  for (const auto& [size, digest] : kCases) {
    EXPECT_EQ(Hex(SipHash24(kKey0, kKey1).FinishWith(Message(size))), digest) << size;
  }
  EXPECT_EQ(Hex(SipHash13(kKey0, kKey1).FinishWith(Message(63))), "4C5800E34EFE426F079F6B0AA75260AD");
}

TEST(SipHash, WordsAreBytesInLittleEndianOrder) {
  SipHash24 hash(kKey0, kKey1);
  hash.Add(0x0706050403020100u);
  hash.Add(0x0f0e0d0c0b0a0908u);
  EXPECT_EQ(Hex(hash.Finish()), "6EE2A4CA67B054BBFD3315BF85230577");
}

}  // namespace
}  // namespace orrery
