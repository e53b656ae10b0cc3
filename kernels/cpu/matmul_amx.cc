// AMX tiles, for bf16 and i8 weights. A block of work is up to 2048 values of k times one panel (32 columns):
// at most 128 KiB of weights as bf16, which stay in the L2 cache beside the activations while all rows pass
// over them, 32 rows (2 x 2 tiles) at a time. Longer sums travel between blocks through memory as f32, which
// is exact: the order of additions is that of k for any number of rows.
//
// The tile unit waits for the L2 cache, so everything else happens in its shadow, a little at each step of k:
// the next block of weights is prefetched (few rows then run at the speed of memory), lines of the result are
// fetched for writing, and rows of the previous result go through the epilogue. i8 weights are widened to
// bf16 (exact) once for each block.

#include "kernels/cpu/matmul_task.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace orrery {
namespace {

#include "kernels/cpu/matmul_epilogue.h"

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileBytes = 1024;            // 16 rows of 32 bf16 or of 16 f32
constexpr int64_t kBlockSteps = 64;             // steps of 32 values of k
constexpr int64_t kStepBytes = 2 * kTileBytes;  // two halves of a panel in bf16
constexpr int64_t kRingSteps = 8;               // of widened weights kept when no further rows will use them
constexpr int64_t kPrefetchBytes = 8 * 1024;    // ahead, when a single pass over the weights consumes them
constexpr int64_t kPairRows = 2 * kTileRows;
constexpr int64_t kPairBytes = 4 * kTileBytes;  // sums of 32 rows by 32 columns
constexpr int64_t kWidenedBytes = kBlockSteps * kStepBytes;

static_assert(MatMulTask::kThreadScratchBytes >=
              MatMulTask::kBlockRows / kPairRows * MatMulTask::kMaxChunkPanels * kPairBytes + 2 * kPairBytes +
                  kWidenedBytes);

// The tile intrinsics do not tell the compiler which memory they read: stores stay before this point.
inline void PublishToTiles() { asm volatile("" : : : "memory"); }

// C is tiles 0..3, A is 4 and 5, B is 6 and 7. Fewer than 16 rows in all need shorter tiles only.
void ConfigureTiles(int64_t rows) {
  struct alignas(64) {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = 64;
    config.rows[tile] = static_cast<uint8_t>(tile < 6 && rows < kTileRows ? rows : kTileRows);
  }
  PublishToTiles();
  _tile_loadconfig(&config);
}

// What is done beside the products, one Step for each step of k.
class Background {
 public:
  explicit Background(const MatMulTask& task) : task_(task) {
    const int64_t size = static_cast<int64_t>(SizeOf(task.out.dtype));
    const bool gated = task.weight->order() == ColumnOrder::kGated;
    row_bytes_ = (gated ? PackedMatrix::kHalfColumns : PackedMatrix::kPanelColumns) * size;
    stride_bytes_ = task.out.stride * size;
  }

  // Weights to have arrived after `steps`: first those up to `end`, then `next_bytes` of the next block.
  void Prefetch(const std::byte* begin, const std::byte* end, const std::byte* next, int64_t next_bytes,
                int64_t steps) {
    weights_ = begin;
    weights_end_ = end;
    next_weights_ = next;
    next_bytes_ = next_bytes;
    lines_ = ((end - begin + next_bytes) / 64 + steps - 1) / steps;
  }

  // Lines of the result that the rows of a panel will be written to.
  void PrefetchResult(int64_t first_row, int64_t rows, int64_t panel) {
    out_ = static_cast<const std::byte*>(task_.out.data) + first_row * stride_bytes_ + panel * row_bytes_;
    out_rows_ = rows;
  }

  // Sums ready for the epilogue, row r of tile t at sums + t * 512 + r * 16; finishes what was left of the
  // previous ones.
  void Finish(const float* sums, int64_t first_row, int64_t rows, int64_t panel) {
    Flush();
    sums_ = sums;
    first_row_ = first_row;
    rows_ = rows;
    done_ = 0;
    panel_ = panel;
  }

  void Flush() {
    while (done_ < rows_) FinishOne();
  }

  void Step() {
    for (int64_t i = 0; i < lines_ && weights_ < weights_end_; ++i, weights_ += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(weights_), _MM_HINT_T1);
    }
    if (weights_ >= weights_end_) {
      weights_ = next_weights_;
      weights_end_ = next_weights_ + next_bytes_;
      next_bytes_ = 0;
    }
    if (out_rows_ > 0) {
      for (int64_t i = 0; i < row_bytes_; i += 64) __builtin_prefetch(out_ + i, 1, 2);
      out_ += stride_bytes_;
      --out_rows_;
    }
    if (done_ < rows_) FinishOne();
  }

 private:
  void FinishOne() {
    const float* const row = sums_ + done_ / kTileRows * 512 + done_ % kTileRows * 16;
    FinishRow(task_, first_row_ + done_, panel_, row, row + 256);
    ++done_;
  }

  const MatMulTask& task_;
  int64_t row_bytes_;
  int64_t stride_bytes_;
  const std::byte* weights_ = nullptr;
  const std::byte* weights_end_ = nullptr;
  const std::byte* next_weights_ = nullptr;
  int64_t next_bytes_ = 0;
  int64_t lines_ = 0;
  const std::byte* out_ = nullptr;
  int64_t out_rows_ = 0;
  const float* sums_ = nullptr;
  int64_t first_row_ = 0;
  int64_t rows_ = 0;
  int64_t done_ = 0;
  int64_t panel_ = 0;
};

// Widens one step of a panel: 1 KiB of i8 + 128 to 2 KiB of bf16. A lane holds 4 values of k of one column.
inline void WidenStep(const std::byte* in, std::byte* out) {
  const __m512i byte0 = _mm512_set1_epi32(0xff), byte1 = _mm512_set1_epi32(0xff00);
  // A byte in the lowest bits of a float of exponent 2^23, or eight bits higher in one of exponent 2^15,
  // reads as that power plus the byte.
  const __m512i one23 = _mm512_set1_epi32(0x4b000000), one15 = _mm512_set1_epi32(0x47000000);
  const __m512 zero23 = _mm512_set1_ps(8388608.0f + 128.0f), zero15 = _mm512_set1_ps(32768.0f + 128.0f);
  constexpr int kAndOr = 0xf8;  // a | (b & c)
#pragma GCC unroll 4
  for (int i = 0; i < 16; ++i) {
    __m512i word = _mm512_load_si512(in + i * 64);
    for (int pair = 0; pair < 2; ++pair) {
      const __m512 even =
          _mm512_sub_ps(_mm512_castsi512_ps(_mm512_ternarylogic_epi32(one23, word, byte0, kAndOr)), zero23);
      const __m512 odd =
          _mm512_sub_ps(_mm512_castsi512_ps(_mm512_ternarylogic_epi32(one15, word, byte1, kAndOr)), zero15);
      // Integers up to 127 fit bf16: the upper halves of the floats are exact.
      const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(even), 16);
      _mm512_store_si512(out + (i * 2 + pair) * 64,
                         _mm512_mask_blend_epi16(0xaaaaaaaa, low, _mm512_castps_si512(odd)));
      word = _mm512_srli_epi32(word, 16);
    }
  }
}

// One block for 16 * kTiles rows: to = (from, or 0 if null) + a * b. With kWiden, b is i8 and is left as bf16
// in `widened`, step s at s modulo `ring` (a power of two).
template <int kTiles, bool kWiden>
inline void MultiplyBlock(const std::byte* a, int64_t a_stride, const std::byte* b, int64_t steps,
                          const float* from, float* to, std::byte* widened, int64_t ring,
                          Background& background) {
  if (from == nullptr) {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (kTiles == 2) {
      _tile_zero(2);
      _tile_zero(3);
    }
  } else {
    _tile_loadd(0, from, 64);
    _tile_loadd(1, from + 256, 64);
    if constexpr (kTiles == 2) {
      _tile_loadd(2, from + 512, 64);
      _tile_loadd(3, from + 768, 64);
    }
  }
  constexpr int64_t kAhead = 2;  // steps between the stores of the widened tile and its load
  if constexpr (kWiden) {
    for (int64_t s = 0; s < kAhead && s < steps; ++s) WidenStep(b + s * kTileBytes, widened + s * kStepBytes);
  }
  PublishToTiles();
  for (int64_t s = 0; s < steps; ++s) {
    if constexpr (kWiden) {
      const int64_t later = s + kAhead;
      if (later < steps) WidenStep(b + later * kTileBytes, widened + (later & (ring - 1)) * kStepBytes);
      PublishToTiles();
    }
    const std::byte* const tiles = kWiden ? widened + (s & (ring - 1)) * kStepBytes : b + s * kStepBytes;
    _tile_loadd(6, tiles, 64);
    _tile_loadd(4, a + s * kTileBytes, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, tiles + kTileBytes, 64);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kTiles == 2) {
      _tile_loadd(5, a + a_stride + s * kTileBytes, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    background.Step();
  }
  _tile_stored(0, to, 64);
  _tile_stored(1, to + 256, 64);
  if constexpr (kTiles == 2) {
    _tile_stored(2, to + 512, 64);
    _tile_stored(3, to + 768, 64);
  }
}

struct Block {
  int64_t panel = 0;
  int64_t step = 0;  // first step of k

  int64_t Steps(int64_t all) const { return all - step < kBlockSteps ? all - step : kBlockSteps; }
};

// One thread's share of a product.
class Worker {
 public:
  Worker(MatMulTask& task, int thread)
      : task_(task),
        weight_(*task.weight),
        steps_(weight_.padded_k() / PackedMatrix::kDepth),
        tiles_((task.in.rows + kTileRows - 1) / kTileRows),
        pairs_((tiles_ + 1) / 2),
        step_bytes_(weight_.dtype() == DType::kI8 ? kTileBytes : kStepBytes),
        widened_(task.thread_scratch + thread * MatMulTask::kThreadScratchBytes),
        results_(reinterpret_cast<float*>(widened_ + kWidenedBytes)),
        partial_sums_(results_ + 2 * kPairBytes / 4),
        background_(task) {}

  void Run() {
    ConfigureTiles(task_.in.rows);
    int64_t chunk = TakeChunk();
    while (chunk < weight_.panels()) {
      const int64_t next = TakeChunk();  // taken early: its first block is prefetched during our last
      RunChunk(chunk, next);
      chunk = next;
    }
    background_.Flush();
    _tile_release();
  }

 private:
  int64_t TakeChunk() {
    return task_.next_chunk.fetch_add(1, std::memory_order_relaxed) * task_.chunk_panels;
  }

  void RunChunk(int64_t begin, int64_t next_chunk) {
    const int64_t limit = begin + task_.chunk_panels;
    const int64_t end = limit < weight_.panels() ? limit : weight_.panels();
    for (int64_t step = 0; step < steps_; step += kBlockSteps) {
      for (int64_t panel = begin; panel < end; ++panel) {
        Block next = {panel + 1, step};
        if (next.panel == end) next = {begin, step + kBlockSteps};
        if (next.step >= steps_) next = {next_chunk, 0};
        PrefetchBeside({panel, step}, next);
        RunBlock({panel, step}, partial_sums_ + (panel - begin) * pairs_ * kPairBytes / 4);
      }
    }
  }

  // What to fetch while `block` is multiplied: with few rows the block itself a little ahead of its use and
  // the start of the next one, otherwise all of the next one, spread over the passes.
  void PrefetchBeside(const Block& block, const Block& next) {
    const int64_t steps = block.Steps(steps_);
    const int64_t bytes = steps * step_bytes_;
    const std::byte* const end = weight_.panel(block.panel) + block.step * step_bytes_ + bytes;
    const int64_t ahead = pairs_ > 1 || kPrefetchBytes > bytes ? bytes : kPrefetchBytes;
    const bool has_next = next.panel < weight_.panels();
    const int64_t all_of_next = has_next ? next.Steps(steps_) * step_bytes_ : 0;
    const std::byte* const next_weights =
        has_next ? weight_.panel(next.panel) + next.step * step_bytes_ : end;
    background_.Prefetch(end - bytes + ahead, end, next_weights, ahead < all_of_next ? ahead : all_of_next,
                         pairs_ * steps);
  }

  // partial_sums: of the panel, carried from block to block of k.
  void RunBlock(const Block& block, float* partial_sums) {
    const int64_t steps = block.Steps(steps_);
    const bool first = block.step == 0, last = block.step + steps == steps_;
    const std::byte* const b = weight_.panel(block.panel) + block.step * step_bytes_;
    const bool i8 = weight_.dtype() == DType::kI8;
    const int64_t ring = pairs_ == 1 ? kRingSteps : kBlockSteps;
    for (int64_t pair = 0; pair < pairs_; ++pair) {
      const std::byte* a = task_.packed_in + (block.step * tiles_ + pair * 2 * steps) * kTileBytes;
      float* const sums = partial_sums + pair * kPairBytes / 4;
      float* const to = last ? results_ + (result_ ^= 1) * kPairBytes / 4 : sums;
      const int64_t first_row = pair * kPairRows;
      const int64_t left = task_.in.rows - first_row;
      const int64_t rows = left < kPairRows ? left : kPairRows;
      if (last) background_.PrefetchResult(first_row, rows, block.panel);
      const bool one_tile = rows <= kTileRows;
      const auto multiply = i8 && pair == 0 ? (one_tile ? MultiplyBlock<1, true> : MultiplyBlock<2, true>)
                                            : (one_tile ? MultiplyBlock<1, false> : MultiplyBlock<2, false>);
      multiply(a, steps * kTileBytes, i8 && pair > 0 ? widened_ : b, steps, first ? nullptr : sums, to,
               widened_, ring, background_);
      if (last) background_.Finish(to, first_row, rows, block.panel);
    }
  }

  MatMulTask& task_;
  const PackedMatrix& weight_;
  const int64_t steps_;       // of k
  const int64_t tiles_;       // of 16 rows
  const int64_t pairs_;       // of tiles
  const int64_t step_bytes_;  // of a panel as stored
  // In the thread's scratch:
  std::byte* const widened_;
  float* const results_;       // two of 32 rows by 32 columns: one being finished while the next is summed
  float* const partial_sums_;  // [panels of a chunk][pairs][32 x 32]
  int result_ = 0;
  Background background_;
};

void Multiply(MatMulTask& task, int thread) { Worker(task, thread).Run(); }

inline __m512 LoadPart(const MatMulInput& in, int64_t row, int64_t column, int64_t count) {
  const __mmask16 mask = count >= 16 ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
  if (in.dtype == DType::kF32) {
    return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(in.data) + row * in.stride + column);
  }
  const uint16_t* data = static_cast<const uint16_t*>(in.data) + row * in.stride + column;
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, data));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

// Activations as tiles of A: [block of k][tile of rows][step of the block][16 rows][32], zeros where a tile
// is padded.
void Pack(MatMulTask& task) {
  const int64_t k = task.weight->k();
  const int64_t steps = task.weight->padded_k() / PackedMatrix::kDepth;
  const int64_t tiles = (task.in.rows + kTileRows - 1) / kTileRows;
  const int64_t pieces = (steps + kBlockSteps - 1) / kBlockSteps;
  while (true) {
    const int64_t unit = task.next_pack.fetch_add(1, std::memory_order_relaxed);
    if (unit >= tiles * pieces) return;
    const int64_t tile = unit / pieces, begin = unit % pieces * kBlockSteps;
    const int64_t end = begin + kBlockSteps < steps ? begin + kBlockSteps : steps;
    const int64_t rows = tiles == 1 ? task.in.rows : kTileRows;
    std::byte* const out = task.packed_in + (begin * tiles + tile * (end - begin)) * kTileBytes;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = tile * kTileRows + r;
      const int64_t width = row < task.in.rows ? k : 0;
      for (int64_t s = begin; s < end; ++s) {
        const int64_t column = s * PackedMatrix::kDepth;
        const __m512 low = LoadPart(task.in, row, column, width - column);
        const __m512 high = LoadPart(task.in, row, column + 16, width - column - 16);
        _mm512_store_si512(out + (s - begin) * kTileBytes + r * 64, (__m512i)_mm512_cvtne2ps_pbh(high, low));
      }
    }
  }
}

}  // namespace

const MatMulKernel kMatMulAmx = {Pack, Multiply};

}  // namespace orrery
#endif
