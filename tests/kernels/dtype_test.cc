#include "kernels/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

namespace orrery {
namespace {

// Value of a small binary float with the given exponent and mantissa widths, from its definition.
double Decode(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const uint32_t exponent = (bits >> mantissa_bits) & ((1u << exponent_bits) - 1);
  const double mantissa = bits & ((1u << mantissa_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double sign = bits >> 15 ? -1 : 1;
  if (exponent == (1u << exponent_bits) - 1) return mantissa == 0 ? sign * HUGE_VAL : NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(1 + std::ldexp(mantissa, -mantissa_bits), static_cast<int>(exponent) - bias);
}

TEST(DTypeTest, EveryF16AndBF16WidensExactlyAndComesBack) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const double f16 = Decode(bits, 5, 10);
    const double bf16 = Decode(bits, 8, 7);
    const float wide16 = F32FromF16(static_cast<uint16_t>(bits));
    const float wideb16 = F32FromBF16(static_cast<uint16_t>(bits));
    if (std::isnan(f16)) {
      EXPECT_TRUE(std::isnan(wide16));
      EXPECT_TRUE(std::isnan(F32FromF16(F16FromF32(wide16))));
    } else {
      ASSERT_EQ(wide16, f16) << bits;
      ASSERT_EQ(F16FromF32(wide16), bits);
    }
    if (std::isnan(bf16)) {
      EXPECT_TRUE(std::isnan(F32FromBF16(BF16FromF32(wideb16))));
    } else {
      ASSERT_EQ(wideb16, bf16) << bits;
      ASSERT_EQ(BF16FromF32(wideb16), bits);
    }
  }
}

// Nearest of the two neighbours by exact comparison; ties to the even encoding.
template <typename Widen>
void ExpectNearest(float value, uint16_t got, Widen widen, uint16_t largest) {
  ASSERT_EQ(got >> 15, std::signbit(value) ? 1 : 0);
  const uint16_t magnitude = got & 0x7fff;
  if (magnitude > largest) return;  // overflow is checked apart
  const double x = std::fabs(static_cast<double>(value));
  const double error = std::fabs(x - widen(magnitude));
  if (magnitude > 0) {
    const double below = std::fabs(x - widen(magnitude - 1));
    ASSERT_TRUE(error < below || (error == below && magnitude % 2 == 0)) << value;
  }
  if (magnitude < largest) {
    const double above = std::fabs(x - widen(magnitude + 1));
    ASSERT_TRUE(error < above || (error == above && magnitude % 2 == 0)) << value;
  }
}

// Value of an e4m3 code from its definition.
double DecodeE4M3(int bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  const double sign = bits & 0x80 ? -1 : 1;
  if (exponent == 15 && mantissa == 7) return NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa, -9);
  return sign * std::ldexp(8 + mantissa, exponent - 10);
}

TEST(DTypeTest, EveryE4M3WidensExactlyAndComesBack) {
  for (int bits = 0; bits < 256; ++bits) {
    const float wide = F32FromE4M3(static_cast<uint8_t>(bits));
    ASSERT_EQ(E4M3FromF32(wide), bits);
    if ((bits & 0x7f) == 0x7f) {
      ASSERT_TRUE(std::isnan(wide));
    } else {
      ASSERT_EQ(wide, DecodeE4M3(bits)) << bits;
      ASSERT_EQ(std::signbit(wide), bits >= 0x80);
    }
  }
}

TEST(DTypeTest, E4M3RoundsToNearestEvenAndSaturates) {
  // Between neighbours: the middle goes to the even code, its own neighbours in f32 to the nearer.
  for (int bits = 0; bits < 0x7e; ++bits) {
    const float low = F32FromE4M3(static_cast<uint8_t>(bits)),
                high = F32FromE4M3(static_cast<uint8_t>(bits + 1));
    const float middle = (low + high) / 2;  // exact
    ASSERT_EQ(E4M3FromF32(middle), bits + bits % 2);
    ASSERT_EQ(E4M3FromF32(std::nextafter(middle, 0.0f)), bits);
    ASSERT_EQ(E4M3FromF32(std::nextafter(middle, 1e9f)), bits + 1);
    ASSERT_EQ(E4M3FromF32(-middle), 0x80 + bits + bits % 2);
  }
  std::mt19937 random(2);
  for (int i = 0; i < 300000; ++i) {
    const float value = std::ldexp(static_cast<float>(random()), static_cast<int>(random() % 24) - 44);
    const uint8_t got = E4M3FromF32(value);
    const double error = std::fabs(DecodeE4M3(got) - std::min(value, 448.0f));
    for (const int other : {got - 1, got + 1}) {
      if (other < 0 || other > 0x7e) continue;
      const double its = std::fabs(DecodeE4M3(other) - std::min(value, 448.0f));
      ASSERT_TRUE(error < its || (error == its && got % 2 == 0)) << value;
    }
  }
  for (const float value : {448.0f, 463.9f, 465.0f, 1e30f, HUGE_VALF}) {
    EXPECT_EQ(E4M3FromF32(value), 0x7e);
    EXPECT_EQ(E4M3FromF32(-value), 0xfe);
  }
  EXPECT_EQ(E4M3FromF32(NAN) & 0x7f, 0x7f);
}

TEST(DTypeTest, NarrowingRoundsToNearestEven) {
  std::mt19937 random(1);
  const auto f16 = [](int bits) { return static_cast<double>(F32FromF16(static_cast<uint16_t>(bits))); };
  const auto bf16 = [](int bits) { return static_cast<double>(F32FromBF16(static_cast<uint16_t>(bits))); };
  for (int i = 0; i < 300000; ++i) {
    uint32_t bits = random();
    if (i % 3 == 0) bits &= 0xffffe000u | (random() & 0x1000u);  // ties and exact f16 values
    if (i % 3 == 1) bits = (bits & 0x8fffffffu) | 0x30000000u;   // the range of f16
    const float value = std::bit_cast<float>(bits);
    if (std::isnan(value) || std::isinf(value)) continue;
    ExpectNearest(value, F16FromF32(value), f16, 0x7bff);
    ExpectNearest(value, BF16FromF32(value), bf16, 0x7f7f);
  }
}

TEST(DTypeTest, OverflowGivesInfinity) {
  EXPECT_EQ(F16FromF32(65519.996f), 0x7bff);
  EXPECT_EQ(F16FromF32(65520.0f), 0x7c00);
  EXPECT_EQ(F16FromF32(-1e30f), 0xfc00);
  EXPECT_EQ(BF16FromF32(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(BF16FromF32(-std::numeric_limits<float>::infinity()), 0xff80);
}

}  // namespace
}  // namespace orrery
