// The memory of one query tile that AttentionTileAmx works on. Only for files compiled for AMX; internal to
// kernels/cpu.
#ifndef ORRERY_KERNELS_CPU_ATTENTION_AMX_BUFFERS_H_
#define ORRERY_KERNELS_CPU_ATTENTION_AMX_BUFFERS_H_

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/attention_tile.h"

#define ORRERY_INLINE [[gnu::always_inline]] inline

namespace orrery::amx {

constexpr int64_t kStep = 32;                   // products that one tile instruction adds up
constexpr int64_t kScoreStride = kKvTile + 16;  // floats; off the power of two, which would share cache sets
constexpr int64_t kScoreBytes = kScoreStride * 4;
constexpr int64_t kWeightStride = kKvTile + 32;  // bf16

struct Buffers {
  uint16_t* q;        // [rows16, key_dims]
  uint16_t* values;   // [kKvTile / 32][value_dims / 16] tiles
  float* out;         // [rows16, value_dims]
  float* sum;         // [rows16, 16 lanes]
  float* max;         // [rows16]
  float* scores;      // [32, kScoreStride]
  uint16_t* weights;  // [32, kWeightStride]
  int64_t rows;
  int64_t key_dims;
  int64_t value_dims;
};

ORRERY_INLINE __mmask16 FirstLanes(int64_t n) {
  return n >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << (n > 0 ? n : 0)) - 1);
}

}  // namespace orrery::amx

#endif  // ORRERY_KERNELS_CPU_ATTENTION_AMX_BUFFERS_H_
