// What the users of the AMX tile unit share: the shapes of its eight tiles, and the order of memory around
// its instructions. Only for files compiled for AMX; every function is inlined. Internal to kernels/cpu.
#ifndef ORRERY_KERNELS_CPU_AMX_TILES_H_
#define ORRERY_KERNELS_CPU_AMX_TILES_H_

#include <immintrin.h>

#include <cstdint>

namespace orrery::amx {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileBytes = 1024;

// The compiler does not know that tile instructions read and write memory: plain stores in front of a tile
// load and plain loads behind a tile store are kept on their side by this.
[[gnu::always_inline]] inline void OrderMemory() { asm volatile("" : : : "memory"); }

// Sums are tiles 0 to 3, the left operand 4 and 5, the right operand 6 and 7, as two by two blocks of sums
// want it. The first six have `rows` rows, in [1, 16]: fewer take less time.
[[gnu::always_inline]] inline void ConfigureTiles(int64_t rows) {
  struct alignas(64) {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = 64;
    config.rows[tile] = static_cast<uint8_t>(tile < 6 ? rows : kTileRows);
  }
  asm volatile("" : : "m"(config) : "memory");  // the intrinsic reads all of it and says so of one byte
  _tile_loadconfig(&config);
}

}  // namespace orrery::amx

#endif  // ORRERY_KERNELS_CPU_AMX_TILES_H_
