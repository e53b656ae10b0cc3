// The device instructions that the kernels use, on the CPU: same names and meaning as in
// kernels/cuda/primitives.cuh, which includes this where no CUDA compiler runs. Fragments lie in registers as
// the PTX ISA says (section "Matrix Fragments for mma.m16n8k16", "ldmatrix", "movmatrix"): with
// g = lane / 4 and t = lane % 4,
//
//   A [16, 16]  a0 (g, 2t..)  a1 (g + 8, 2t..)  a2 (g, 2t + 8..)  a3 (g + 8, 2t + 8..)
//   B [16, 8]   b0 (2t.., g)  b1 (2t + 8.., g)
//   C [16, 8]   c0, c1 (g, 2t..)  c2, c3 (g + 8, 2t..)
//   an 8 x 8 matrix of 16 bits  (g, 2t..)
#ifndef ORRERY_KERNELS_EMULATE_INSTRUCTIONS_H_
#define ORRERY_KERNELS_EMULATE_INSTRUCTIONS_H_

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/dtype.h"
#include "kernels/emulate/thread_block.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define ORRERY_UNROLL
#define ORRERY_SHARED_MEMORY(name) std::byte* const name = ::orrery::emulate::ThreadBlock::Current().shared()

namespace orrery::cuda {

struct BF16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
struct E4M3 {
  uint8_t bits;
};

inline int ThreadX() { return emulate::ThreadBlock::Current().thread(); }
inline int BlockThreads() { return emulate::ThreadBlock::Current().num_threads(); }
inline int BlockX() { return static_cast<int>(emulate::ThreadBlock::Current().index().x); }
inline int BlockY() { return static_cast<int>(emulate::ThreadBlock::Current().index().y); }
inline int GridX() { return static_cast<int>(emulate::ThreadBlock::Current().grid().x); }

inline void SyncBlock() { emulate::ThreadBlock::Current().SyncBlock(); }
inline void SyncWarp() { emulate::ThreadBlock::Current().Exchange("__syncwarp", nullptr, 0); }

template <typename T>
T FromLane(const std::byte* shown, int lane) {
  T value;
  std::memcpy(&value, shown + lane * emulate::kExchangeBytes, sizeof(T));
  return value;
}

template <typename T>
T Shuffle(T value, int source_lane) {
  return FromLane<T>(emulate::ThreadBlock::Current().Exchange("shfl.idx", &value, sizeof(T)),
                     source_lane % 32);
}

template <typename T>
T ShuffleXor(T value, int lane_mask) {
  emulate::ThreadBlock& block = emulate::ThreadBlock::Current();
  return FromLane<T>(block.Exchange("shfl.bfly", &value, sizeof(T)), block.lane() ^ lane_mask);
}

inline uint32_t Ballot(bool predicate) {
  const std::byte* shown = emulate::ThreadBlock::Current().Exchange("vote.ballot", &predicate, sizeof(bool));
  uint32_t bits = 0;
  for (int lane = 0; lane < 32; ++lane) {
    bits |= static_cast<uint32_t>(shown[lane * emulate::kExchangeBytes] == std::byte{1}) << lane;
  }
  return bits;
}

inline int PopCount(uint32_t bits) { return __builtin_popcount(bits); }

inline float ToFloat(BF16 value) { return F32FromBF16(value.bits); }
inline float ToFloat(F16 value) { return F32FromF16(value.bits); }
inline float ToFloat(float value) { return value; }
inline BF16 ToBF16(float value) { return {BF16FromF32(value)}; }
inline F16 ToF16(float value) { return {F16FromF32(value)}; }
inline E4M3 ToE4M3(float value) { return {E4M3FromF32(value)}; }
inline uint32_t PackBF16(float low, float high) {
  return BF16FromF32(low) | static_cast<uint32_t>(BF16FromF32(high)) << 16;
}
inline float LowBF16(uint32_t pair) { return std::bit_cast<float>(pair << 16); }
inline float HighBF16(uint32_t pair) { return std::bit_cast<float>(pair & 0xffff0000u); }
inline uint32_t MultiplyBF16(uint32_t a, uint32_t b) {
  return PackBF16(LowBF16(a) * LowBF16(b), HighBF16(a) * HighBF16(b));
}
inline uint32_t BitsOf(float value) { return std::bit_cast<uint32_t>(value); }
inline float FloatOf(uint32_t bits) { return std::bit_cast<float>(bits); }
inline float Exp2(float x) { return std::exp2(x); }

// 16 bytes at once.
template <typename Vector>
Vector LoadVector(const void* from) {
  static_assert(sizeof(Vector) == 16);
  emulate::ThreadBlock::Current().CheckAligned(from, 16, "ld.v4");
  Vector value;
  std::memcpy(&value, from, sizeof(Vector));
  return value;
}

template <typename Vector>
void StoreVector(void* to, const Vector& value) {
  static_assert(sizeof(Vector) == 16);
  emulate::ThreadBlock::Current().CheckAligned(to, 16, "st.v4");
  std::memcpy(to, &value, sizeof(Vector));
}

template <typename T>
T AtomicAdd(T* target, T value) {
  emulate::ThreadBlock::Current().Yield();
  const T before = *target;
  *target = static_cast<T>(before + value);
  return before;
}

inline void CopyAsync16(void* shared_target, const void* source, bool valid) {
  emulate::ThreadBlock::Current().CopyAsync(shared_target, valid ? source : nullptr);
}
inline void CommitCopies() { emulate::ThreadBlock::Current().CommitCopies(); }
template <int kGroupsInFlight>
void WaitCopies() {
  emulate::ThreadBlock::Current().WaitCopies(kGroupsInFlight);
}

namespace fragment {

struct Operands {
  uint32_t a[4];
  uint32_t b[2];
};

inline void LoadMatrices(uint32_t registers[4], const void* row, bool transposed) {
  emulate::ThreadBlock& block = emulate::ThreadBlock::Current();
  block.CheckAligned(row, 16, "ldmatrix");
  block.CheckShared(row, 16, "ldmatrix");
  const std::byte* shown = block.Exchange(transposed ? "ldmatrix.trans" : "ldmatrix", &row, sizeof(row));
  const int g = block.lane() / 4, t = block.lane() % 4;
  for (int matrix = 0; matrix < 4; ++matrix) {
    uint16_t pair[2];
    for (int i = 0; i < 2; ++i) {
      const int from_row = transposed ? 2 * t + i : g;
      const int column = transposed ? g : 2 * t + i;
      const auto* values = FromLane<const std::byte*>(shown, matrix * 8 + from_row);
      std::memcpy(&pair[i], values + 2 * column, 2);
    }
    registers[matrix] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
  }
}

}  // namespace fragment

inline void LoadMatrix4(uint32_t registers[4], const void* row) {
  fragment::LoadMatrices(registers, row, false);
}
inline void LoadMatrix4Transposed(uint32_t registers[4], const void* row) {
  fragment::LoadMatrices(registers, row, true);
}

inline uint32_t TransposeMatrix(uint32_t pair) {
  emulate::ThreadBlock& block = emulate::ThreadBlock::Current();
  const std::byte* shown = block.Exchange("movmatrix", &pair, sizeof(pair));
  const int g = block.lane() / 4, t = block.lane() % 4;
  uint32_t result = 0;
  for (int i = 0; i < 2; ++i) {
    const uint32_t from = FromLane<uint32_t>(shown, (2 * t + i) * 4 + g / 2);
    result |= (g % 2 == 0 ? from & 0xffffu : from >> 16) << (16 * i);
  }
  return result;
}

inline void MultiplyAdd(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
  emulate::ThreadBlock& block = emulate::ThreadBlock::Current();
  const fragment::Operands mine{{a[0], a[1], a[2], a[3]}, {b0, b1}};
  const std::byte* shown = block.Exchange("mma.m16n8k16", &mine, sizeof(mine));
  const int g = block.lane() / 4, t = block.lane() % 4;
  for (int quad = 0; quad < 4; ++quad) {
    const auto left = FromLane<fragment::Operands>(shown, g * 4 + quad);
    for (int column = 0; column < 2; ++column) {
      const auto right = FromLane<fragment::Operands>(shown, (2 * t + column) * 4 + quad);
      for (int half = 0; half < 2; ++half) {
        float sum = 0.0f;
        for (int i = 0; i < 2; ++i) {
          sum += LowBF16(left.a[2 * i + half]) * LowBF16(right.b[i]) +
                 HighBF16(left.a[2 * i + half]) * HighBF16(right.b[i]);
        }
        c[2 * half + column] += sum;
      }
    }
  }
}

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_EMULATE_INSTRUCTIONS_H_
