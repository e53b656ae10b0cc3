#include "scheduler/base/bytes.h"

#include <gtest/gtest.h>

#include <limits>

namespace orrery {
namespace {

TEST(Bytes, RoundTrip) {
  std::string bytes;
  const uint64_t words[] = {0, 1, 127, 128, 300, 1ull << 35, std::numeric_limits<uint64_t>::max()};
  const int64_t signs[] = {
      0, -1, 1, -64, 64, std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()};
  for (const uint64_t word : words) PutVarint(word, &bytes);
  for (const int64_t value : signs) PutSigned(value, &bytes);
  PutFixed64(0x0123456789abcdefu, &bytes);
  PutFloat(-0.25f, &bytes);
  PutText("text", &bytes);
  ByteReader reader(bytes);
  for (const uint64_t word : words) EXPECT_EQ(reader.Varint(), word);
  for (const int64_t value : signs) EXPECT_EQ(reader.Signed(), value);
  EXPECT_EQ(reader.Fixed64(), 0x0123456789abcdefu);
  EXPECT_EQ(reader.Float(), -0.25f);
  EXPECT_EQ(reader.Text(), "text");
  EXPECT_TRUE(reader.done());
}

TEST(Bytes, EveryTruncationIsSeen) {
  std::string bytes;
  PutVarint(1u << 20, &bytes);
  PutText("hello", &bytes);
  PutFixed64(7, &bytes);
  for (size_t size = 0; size < bytes.size(); ++size) {
    ByteReader reader(std::string_view(bytes).substr(0, size));
    reader.Varint();
    reader.Text();
    reader.Fixed64();
    EXPECT_FALSE(reader.ok()) << size;
  }
}

TEST(Bytes, LyingSizesAndOverlongIntegersFail) {
  std::string bytes;
  PutVarint(1ull << 40, &bytes);
  EXPECT_EQ(ByteReader(bytes).Count(1), 0u) << "more items than bytes";
  const std::string ones(10, '\xff');
  ByteReader overlong(ones);
  overlong.Varint();
  EXPECT_FALSE(overlong.ok());
  std::string large;
  PutSigned(int64_t{1} << 31, &large);
  ByteReader narrow(large);
  narrow.Integer<int32_t>();
  EXPECT_FALSE(narrow.ok());
}

}  // namespace
}  // namespace orrery
