// AMX tiles, for bf16 and i8 weights. A block of work is up to 2048 values of k times one panel (32 columns):
// at most 128 KiB of weights as bf16, which stay in the L2 cache beside the activations while all rows pass
// over them, two tiles of A by two of B at a time. Longer sums travel between blocks through memory in the
// type of the accumulators, which is exact: the order of additions is that of k for any number of rows.
//
// The tile unit waits for the L2 cache, so everything else happens in its shadow, a little at each step of k:
// the next block of weights is prefetched (few rows then run at the speed of memory), lines of the result are
// fetched for writing, and rows of the previous result go through the epilogue.
//
// With i8 weights the two tiles of A are one group of 16 rows twice: activations are 15-bit fixed point,
// q = 128 * high + low with high and low as i8, so that a step takes 64 values of k and the sums of both
// halves are exact integers. No weight is ever widened: a byte of weight costs one byte of memory traffic and
// as much work as a bf16 product.

#include "kernels/cpu/matmul_task.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <type_traits>

#include "kernels/cpu/amx_tiles.h"

namespace orrery {
namespace {

#include "kernels/cpu/matmul_epilogue.h"

using amx::ConfigureTiles;
using amx::kTileRows;
using amx::OrderMemory;
constexpr int64_t kTileBytes = PackedMatrix::kTileBytes;
constexpr int64_t kStepBytes = 2 * kTileBytes;  // of weights: two halves of a panel
constexpr int64_t kPrefetchBytes = 8 * 1024;    // ahead, when a single pass over the weights consumes them
constexpr int64_t kSumBytes = 4 * kTileBytes;   // sums of two tiles of A by two of B
constexpr int64_t kBlockDepth = 2048;           // values of k
constexpr int64_t kMaxFixed = 127 * 128 + 63;   // of an activation beside i8 weights

// What differs between the types of W.
struct BF16Product {
  static constexpr int64_t kDepth = PackedMatrix::DepthOf(DType::kBF16);
  static constexpr int64_t kRows = 2 * kTileRows;  // of a pair of tiles of A
  typedef float Sum;
};

struct I8Product {
  static constexpr int64_t kDepth = PackedMatrix::DepthOf(DType::kI8);
  static constexpr int64_t kRows = kTileRows;  // the first tile holds their high halves, the second their low
  typedef int32_t Sum;
};

static_assert(MatMulTask::kThreadScratchBytes >=
              (MatMulTask::kBlockRows / I8Product::kRows * MatMulTask::kMaxChunkPanels + 2) * kSumBytes);

// How the activations of a product lie in task.packed_in: [block of k][tile of A][step of the block], the
// tiles of a pair side by side, then, beside i8 weights, a scale for each row. Up to eight rows beside i8
// weights need one tile only: their high halves, then their low.
template <typename Product>
struct PackedInput {
  static constexpr bool kI8 = std::is_same_v<Product, I8Product>;
  static constexpr int64_t kBlockSteps = kBlockDepth / Product::kDepth;

  explicit PackedInput(const MatMulTask& task)
      : data(task.packed_in),
        steps((task.weight->k() + Product::kDepth - 1) / Product::kDepth),
        pairs((task.in.rows + Product::kRows - 1) / Product::kRows),
        one_tile(task.in.rows <= (kI8 ? kTileRows / 2 : kTileRows)),
        tiles(kI8 && !one_tile ? 2 * pairs : (task.in.rows + kTileRows - 1) / kTileRows),
        tile_rows(kI8 && one_tile            ? 2 * task.in.rows
                  : task.in.rows < kTileRows ? task.in.rows
                                             : kTileRows),
        low_row(one_tile ? task.in.rows : 2 * kTileRows) {}

  int64_t StepsFrom(int64_t step) const { return steps - step < kBlockSteps ? steps - step : kBlockSteps; }
  // First step of the block that begins at `step`.
  std::byte* Tile(int64_t step, int64_t tile) const {
    return data + (step * tiles + tile * StepsFrom(step)) * kTileBytes;
  }
  float* row_scales() const { return reinterpret_cast<float*>(data + steps * tiles * kTileBytes); }

  std::byte* const data;
  const int64_t steps;  // of k
  const int64_t pairs;
  const bool one_tile;
  const int64_t tiles;
  const int64_t tile_rows;  // as the tile unit is configured
  const int64_t low_row;    // of I8Product: rows of 64 bytes of sums from a high half to its low half
};

// What is done beside the products, one Step for each step of k.
template <typename Product>
class Background {
  using Sum = typename Product::Sum;

 public:
  Background(const MatMulTask& task, const PackedInput<Product>& input)
      : task_(task), row_scales_(input.row_scales()), low_row_(input.low_row) {
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
  void Finish(const Sum* sums, int64_t first_row, int64_t rows, int64_t panel) {
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
    if constexpr (std::is_same_v<Product, BF16Product>) {
      const float* const row = sums_ + done_ / kTileRows * 512 + done_ % kTileRows * 16;
      FinishRow(task_, first_row_ + done_, panel_, row, row + 256);
    } else {
      const __m512 scale = _mm512_set1_ps(row_scales_[first_row_ + done_]);
      alignas(64) float row[2][16];
      for (int half = 0; half < 2; ++half) {
        const int32_t* const high = sums_ + done_ * 16 + half * 256;
        const int32_t* const low = high + low_row_ * 16;
        const __m512 sum =
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(high)), _mm512_set1_ps(128.0f),
                            _mm512_cvtepi32_ps(_mm512_load_si512(low)));
        _mm512_store_ps(row[half], _mm512_mul_ps(sum, scale));
      }
      FinishRow(task_, first_row_ + done_, panel_, row[0], row[1]);
    }
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
  const Sum* sums_ = nullptr;
  const float* const row_scales_;  // I8Product only, as the next
  const int64_t low_row_;
  int64_t first_row_ = 0;
  int64_t rows_ = 0;
  int64_t done_ = 0;
  int64_t panel_ = 0;
};

// One block for one pair of tiles of A, or its first tile alone: to = (from, or 0 if null) + a * b.
template <typename Product, int kTiles>
inline void MultiplyBlock(const std::byte* a, int64_t a_stride, const std::byte* b, int64_t steps,
                          const typename Product::Sum* from, typename Product::Sum* to,
                          Background<Product>& background) {
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
  OrderMemory();
  for (int64_t s = 0; s < steps; ++s, a += kTileBytes, b += kStepBytes) {
    _tile_loadd(6, b, 64);
    _tile_loadd(4, a, 64);
    if constexpr (std::is_same_v<Product, BF16Product>) {
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, b + kTileBytes, 64);
      _tile_dpbf16ps(1, 4, 7);
      if constexpr (kTiles == 2) {
        _tile_loadd(5, a + a_stride, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    } else {
      _tile_dpbssd(0, 4, 6);
      _tile_loadd(7, b + kTileBytes, 64);
      _tile_dpbssd(1, 4, 7);
      if constexpr (kTiles == 2) {
        _tile_loadd(5, a + a_stride, 64);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
      }
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
};

// One thread's share of a product.
template <typename Product>
class Worker {
  using Sum = typename Product::Sum;

 public:
  Worker(MatMulTask& task, int thread)
      : task_(task),
        weight_(*task.weight),
        input_(task),
        results_(reinterpret_cast<Sum*>(task.thread_scratch + thread * MatMulTask::kThreadScratchBytes)),
        partial_sums_(results_ + 2 * kSumBytes / 4),
        background_(task, input_) {}

  void Run() {
    ConfigureTiles(input_.tile_rows);
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
    for (int64_t step = 0; step < input_.steps; step += input_.kBlockSteps) {
      for (int64_t panel = begin; panel < end; ++panel) {
        Block next = {panel + 1, step};
        if (next.panel == end) next = {begin, step + input_.kBlockSteps};
        if (next.step >= input_.steps) next = {next_chunk, 0};
        PrefetchBeside({panel, step}, next);
        RunBlock({panel, step}, partial_sums_ + (panel - begin) * input_.pairs * kSumBytes / 4);
      }
    }
  }

  const std::byte* Weights(const Block& block) const {
    return weight_.panel(block.panel) + block.step * kStepBytes;
  }

  // What to fetch while `block` is multiplied: with few rows the block itself a little ahead of its use and
  // the start of the next one, otherwise all of the next one, spread over the passes.
  void PrefetchBeside(const Block& block, const Block& next) {
    const int64_t steps = input_.StepsFrom(block.step);
    const int64_t bytes = steps * kStepBytes;
    const std::byte* const begin = Weights(block);
    const int64_t ahead = input_.pairs > 1 || kPrefetchBytes > bytes ? bytes : kPrefetchBytes;
    const bool has_next = next.panel < weight_.panels();
    const int64_t all_of_next = has_next ? input_.StepsFrom(next.step) * kStepBytes : 0;
    background_.Prefetch(begin + ahead, begin + bytes, has_next ? Weights(next) : begin + bytes,
                         ahead < all_of_next ? ahead : all_of_next, input_.pairs * steps);
  }

  // partial_sums: of the panel, carried from block to block of k.
  void RunBlock(const Block& block, Sum* partial_sums) {
    const int64_t steps = input_.StepsFrom(block.step);
    const bool first = block.step == 0, last = block.step + steps == input_.steps;
    for (int64_t pair = 0; pair < input_.pairs; ++pair) {
      Sum* const sums = partial_sums + pair * kSumBytes / 4;
      Sum* const to = last ? results_ + (result_ ^= 1) * kSumBytes / 4 : sums;
      const int64_t first_row = pair * Product::kRows;
      const int64_t left = task_.in.rows - first_row;
      const int64_t rows = left < Product::kRows ? left : Product::kRows;
      if (last) background_.PrefetchResult(first_row, rows, block.panel);
      const bool one_tile = Product::kRows > kTileRows ? rows <= kTileRows : input_.one_tile;
      const auto multiply = one_tile ? MultiplyBlock<Product, 1> : MultiplyBlock<Product, 2>;
      multiply(input_.Tile(block.step, 2 * pair), steps * kTileBytes, Weights(block), steps,
               first ? nullptr : sums, to, background_);
      if (last) background_.Finish(to, first_row, rows, block.panel);
    }
  }

  MatMulTask& task_;
  const PackedMatrix& weight_;
  const PackedInput<Product> input_;
  // In the thread's scratch:
  Sum* const results_;       // two of kSumBytes: one being finished while the next is summed
  Sum* const partial_sums_;  // [panels of a chunk][pairs][kSumBytes]
  int result_ = 0;
  Background<Product> background_;
};

inline __m512 LoadPart(const MatMulInput& in, int64_t row, int64_t column, int64_t count) {
  const __mmask16 mask = count >= 16 ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
  if (in.dtype == DType::kF32) {
    return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(in.data) + row * in.stride + column);
  }
  const uint16_t* data = static_cast<const uint16_t*>(in.data) + row * in.stride + column;
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, data));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

// Rounds the activations to bf16, a tile of rows by a block of k at a time, zeros where a tile is padded.
void PackBF16(MatMulTask& task) {
  const PackedInput<BF16Product> input(task);
  constexpr int64_t kBlockSteps = PackedInput<BF16Product>::kBlockSteps;
  const int64_t blocks = (input.steps + kBlockSteps - 1) / kBlockSteps;
  while (true) {
    const int64_t unit = task.next_pack.fetch_add(1, std::memory_order_relaxed);
    if (unit >= input.tiles * blocks) return;
    const int64_t tile = unit / blocks, begin = unit % blocks * kBlockSteps;
    std::byte* const out = input.Tile(begin, tile);
    for (int64_t r = 0; r < input.tile_rows; ++r) {
      const int64_t row = tile * kTileRows + r;
      const int64_t width = row < task.in.rows ? task.weight->k() : 0;
      for (int64_t s = 0; s < input.StepsFrom(begin); ++s) {
        const int64_t column = (begin + s) * BF16Product::kDepth;
        const __m512 low = LoadPart(task.in, row, column, width - column);
        const __m512 high = LoadPart(task.in, row, column + 16, width - column - 16);
        _mm512_store_si512(out + s * kTileBytes + r * 64, (__m512i)_mm512_cvtne2ps_pbh(high, low));
      }
    }
  }
}

// Bits of the largest magnitude of a row; above those of FLT_MAX if a value is not finite.
uint32_t MaxMagnitude(const MatMulInput& in, int64_t row, int64_t k) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i max = _mm512_setzero_si512();
  for (int64_t i = 0; i < k; i += 16) {
    const __m512i bits = _mm512_castps_si512(LoadPart(in, row, i, k - i));
    max = _mm512_max_epu32(max, _mm512_and_si512(bits, magnitude));
  }
  return _mm512_reduce_max_epu32(max);
}

// One row as fixed point: the scale that it is to be multiplied by. A row with a value that is not finite
// has the scale NaN, so that its sums are NaN as they would be in floating point.
float PackRowI8(const PackedInput<I8Product>& input, const MatMulInput& in, int64_t row, int64_t k) {
  constexpr uint32_t kMaxFinite = 0x7f7fffff, kTiny = 0x04000000;  // 2^-119: below, a row counts as zero
  const uint32_t bits = MaxMagnitude(in, row, k);
  const float max = _mm512_cvtss_f32(_mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(bits))));
  const bool normal = bits >= kTiny && bits <= kMaxFinite;
  const __m512 inverse = _mm512_set1_ps(normal ? static_cast<float>(kMaxFixed) / max : 0.0f);
  const int64_t tile = row / kTileRows * 2, high_row = row % kTileRows;
  const int64_t low_tile = input.one_tile ? 0 : tile + 1;
  const int64_t low_row = input.one_tile ? row + input.low_row : high_row;
  for (int64_t begin = 0; begin < input.steps; begin += input.kBlockSteps) {
    std::byte* high = input.Tile(begin, tile) + high_row * 64;
    std::byte* low = input.Tile(begin, low_tile) + low_row * 64;
    for (int64_t s = 0; s < input.StepsFrom(begin); ++s, high += kTileBytes, low += kTileBytes) {
      for (int64_t i = 0; i < 64; i += 16) {
        const int64_t column = (begin + s) * I8Product::kDepth + i;
        const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(LoadPart(in, row, column, k - column), inverse));
        const __m512i upper = _mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(64)), 7);
        const __m512i lower = _mm512_sub_epi32(q, _mm512_slli_epi32(upper, 7));
        _mm_store_si128(reinterpret_cast<__m128i*>(high + i), _mm512_cvtepi32_epi8(upper));
        _mm_store_si128(reinterpret_cast<__m128i*>(low + i), _mm512_cvtepi32_epi8(lower));
      }
    }
  }
  if (bits > kMaxFinite) return _mm512_cvtss_f32(_mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000)));
  return normal ? max / static_cast<float>(kMaxFixed) : 0.0f;
}

// Rows past the last are left as they are: their sums go nowhere.
void PackI8(MatMulTask& task) {
  const PackedInput<I8Product> input(task);
  while (true) {
    const int64_t row = task.next_pack.fetch_add(1, std::memory_order_relaxed);
    if (row >= task.in.rows) return;
    input.row_scales()[row] = PackRowI8(input, task.in, row, task.weight->k());
  }
}

void Pack(MatMulTask& task) {
  if (task.weight->dtype() == DType::kI8) {
    PackI8(task);
  } else {
    PackBF16(task);
  }
}

void Multiply(MatMulTask& task, int thread) {
  if (task.weight->dtype() == DType::kI8) {
    Worker<I8Product>(task, thread).Run();
  } else {
    Worker<BF16Product>(task, thread).Run();
  }
}

}  // namespace

const MatMulKernel kMatMulAmx = {Pack, Multiply};

}  // namespace orrery
#endif
