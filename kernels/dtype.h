#ifndef ORRERY_KERNELS_DTYPE_H_
#define ORRERY_KERNELS_DTYPE_H_

// Element types of tensors and the scalar conversions between them. bf16 and f16 values travel as their
// raw 16 bits (uint16_t), as they lie in a checkpoint. Every narrowing conversion rounds to nearest, ties
// to even; a NaN stays a NaN (quieted), f16 overflow gives infinity, f16 subnormals are exact. e4m3 is the
// OCP's 8-bit float (sign, 4 bits of exponent with bias 7, 3 of mantissa; no infinity, 448 is the largest,
// 0x7f the NaN), in raw 8 bits; overflow and infinity give 448.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace orrery {

enum class DType : uint8_t { kF32, kF16, kBF16, kI8, kI32, kE4M3 };

constexpr size_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kI8:
    case DType::kE4M3:
      return 1;
  }
  return 0;
}

// Lower-case name as used by flags, metrics and messages: "f32", "f16", "bf16", "i8", "i32", "fp8".
constexpr std::string_view NameOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kF16:
      return "f16";
    case DType::kBF16:
      return "bf16";
    case DType::kI8:
      return "i8";
    case DType::kI32:
      return "i32";
    case DType::kE4M3:
      return "fp8";
  }
  return "?";
}

// Always inlined: files compiled for one instruction set include this header, and an out-of-line copy
// made there could be the one the linker keeps for everybody.
#define ORRERY_SCALAR [[gnu::always_inline]] constexpr inline

ORRERY_SCALAR float F32FromBF16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

ORRERY_SCALAR uint16_t BF16FromF32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

ORRERY_SCALAR float F32FromF16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) {  // infinity or NaN
    const uint32_t quiet = magnitude > 0x7c00u ? 0x400000u : 0u;
    return std::bit_cast<float>(sign | 0x7f800000u | quiet | ((magnitude & 0x3ffu) << 13));
  }
  if (magnitude < 0x400u) {  // zero or subnormal: magnitude * 2^-24 is exact in f32
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
}

ORRERY_SCALAR uint16_t F16FromF32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to 2^16 or more
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 lets the FPU round at 2^-24
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | (rounded >> 13));
}

ORRERY_SCALAR float F32FromE4M3(uint8_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x80u) << 24;
  const uint32_t magnitude = bits & 0x7fu;
  if (magnitude == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
  // The exponent as f32 has it, but for the bias: a multiplication by 2^120 is exact, of subnormals too.
  return std::bit_cast<float>(sign | magnitude << 20) * 0x1p120f;
}

ORRERY_SCALAR uint8_t E4M3FromF32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 24) & 0x80u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7fu);
  if (magnitude >= 0x43e00000u) return static_cast<uint8_t>(sign | 0x7eu);  // 448 or more
  if (magnitude < 0x3c800000u) {  // below 2^-6: adding 2^14 lets the FPU round at 2^-9
    const float shifted = std::bit_cast<float>(magnitude) + 0x1p14f;
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x46800000u));
  }
  const uint32_t rounded = magnitude - 0x3c000000u + 0x7ffffu + ((magnitude >> 20) & 1u);
  return static_cast<uint8_t>(sign | (rounded >> 20));
}

#undef ORRERY_SCALAR

}  // namespace orrery

#endif  // ORRERY_KERNELS_DTYPE_H_
