// One query tile of one KV head: the unit of work of paged attention, with an implementation per instruction
// set. Internal to kernels/cpu.
#ifndef ORRERY_KERNELS_CPU_ATTENTION_TILE_H_
#define ORRERY_KERNELS_CPU_ATTENTION_TILE_H_

#include <cstdint>

#include "kernels/cpu/kv_layout.h"

namespace orrery {

// Tokens between two rescalings of the online softmax, counted from position 0 of the sequence.
constexpr int kKvTile = 256;

struct AttentionTileArgs {
  const float* q = nullptr;  // first token's row, first query head of the group
  int64_t q_stride = 0;      // floats between rows
  int32_t tokens = 0;
  int32_t group = 0;  // query heads of this KV head
  int32_t head_dim = 0;
  int32_t position = 0;  // of the first token
  const int32_t* block_table = nullptr;
  const uint8_t* keys = nullptr;  // this head's keys in block 0 of the layer
  int64_t value_offset = 0;       // bytes from a head's keys to its values
  int64_t block_stride = 0;       // bytes
  int64_t value_dims = 0;         // PaddedValueDims
  float scale = 1.0f;
  uint8_t* out = nullptr;  // where q points to, in the output
  int64_t out_stride = 0;  // elements between rows
  bool out_bf16 = false;
  uint8_t* scratch = nullptr;  // TileScratchBytes, 64-byte aligned
  // What this thread attends over next, so that its first keys are on their way when it gets there.
  const uint8_t* next_keys = nullptr;
  const int32_t* next_table = nullptr;
  int32_t next_tokens = 0;  // 0: not known
};

// Enough for every implementation. Row r of a tile is query head r % group of token r / group.
constexpr int64_t TileScratchBytes(int64_t rows, int64_t head_dim) {
  const int64_t dims = (head_dim + 31) / 32 * 32;
  const int64_t padded_rows = (rows + 31) / 32 * 32;
  const int64_t per_row = 2 * dims * 4 + kKvTile * 4 + 128;  // queries, output, scores, sums and maxima
  const int64_t shared =
      kKvTile * dims * 2 + 32 * 6 * kKvTile;  // staged values; scores and weights of 32 rows
  return padded_rows * per_row + shared + 32 * 64 * 4;
}

#if defined(__x86_64__)
// bf16 keys and values; only where ActiveIsa() is kAmx.
void AttentionTileAmx(const AttentionTileArgs& args);
#endif

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_ATTENTION_TILE_H_
