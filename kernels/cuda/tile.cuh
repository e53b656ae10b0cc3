// Tiles of keys, values and queries in shared memory: rows of kHeadDim bfloat16 or e4m3, in chunks of 16
// bytes whose place is permuted within a row so that neither the copies that write them nor ldmatrix, which
// reads eight rows at once, meet in a bank.
#ifndef ORRERY_KERNELS_CUDA_TILE_CUH_
#define ORRERY_KERNELS_CUDA_TILE_CUH_

#include "kernels/cuda/fault.h"
#include "kernels/cuda/primitives.cuh"

namespace orrery::cuda {

inline constexpr int kChunkBytes = 16;

template <int kHeadDim, int kElementBytes = 2>
struct Tile {
  static_assert(kHeadDim % 64 == 0);
  static constexpr int kRowBytes = kHeadDim * kElementBytes;
  static constexpr int kChunks = kRowBytes / kChunkBytes;  // of a row

  // Byte offset of a chunk.
  static __device__ __forceinline__ int At(int row, int chunk) {
    // Two rows of four chunks share the 128 bytes that the banks have.
    if constexpr (kChunks == 4) return row * kRowBytes + ((chunk ^ (row >> 1)) & 3) * kChunkBytes;
    return row * kRowBytes + ((chunk & ~7) | ((chunk ^ row) & 7)) * kChunkBytes;
  }
};

// Bytes 0 and 2 of four e4m3 as a pair of bfloat16, which holds them exactly, and bytes 1 and 3. A NaN
// becomes infinite, which a sum over tokens does not hide either.
__device__ __forceinline__ void WidenE4M3(uint32_t four, uint32_t& even, uint32_t& odd) {
  // Exponent and mantissa where bfloat16 has them; then the exponents' biases differ by 120, for subnormals,
  // too. All seven bits set, the NaN, carry into the exponent's highest.
  const auto widen = [](uint32_t signs, uint32_t magnitudes) {
    constexpr uint32_t kBias = 0x7b807b80u;
    signs &= 0x80008000u;
    magnitudes &= 0x07f007f0u;
    const uint32_t carries = (8 * magnitudes + 0x00800080u) & 0x40004000u;
    return MultiplyBF16(signs | magnitudes | carries, kBias);
  };
  even = widen(four << 8, four << 4);
  odd = widen(four, four >> 4);
}

// Where the lane's row of the four 8 x 8 matrices of an ldmatrix lies, as blocks of 8 rows and chunks. The
// halves of a 16 x 16 block come in the order (top left, bottom left, top right, bottom right) where
// kRowsFirst, else (top left, top right, bottom left, bottom right).
template <bool kRowsFirst>
struct MatrixLane {
  int row, chunk;
  __device__ __forceinline__ explicit MatrixLane(int lane) {
    const int in_matrix = lane % 8, low = lane / 8 % 2, high = lane / 16;
    row = in_matrix + 8 * (kRowsFirst ? low : high);
    chunk = kRowsFirst ? high : low;
  }
};

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_TILE_CUH_
