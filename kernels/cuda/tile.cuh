// Tiles of keys, values and queries in shared memory: rows of kHeadDim bfloat16, in chunks of 16 bytes whose
// place is permuted within a row so that neither the copies that write them nor ldmatrix, which reads eight
// rows at once, meet in a bank.
#ifndef ORRERY_KERNELS_CUDA_TILE_CUH_
#define ORRERY_KERNELS_CUDA_TILE_CUH_

#include "kernels/cuda/fault.h"
#include "kernels/cuda/primitives.cuh"

namespace orrery::cuda {

inline constexpr int kChunkBytes = 16;

template <int kHeadDim>
struct Tile {
  static_assert(kHeadDim % 64 == 0);
  static constexpr int kChunks = kHeadDim / 8;  // of a row
  static constexpr int kRowBytes = kHeadDim * 2;

  // Byte offset of a chunk.
  static __device__ __forceinline__ int At(int row, int chunk) {
    return row * kRowBytes + ((chunk & ~7) | ((chunk ^ row) & 7)) * kChunkBytes;
  }
};

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
