#ifndef ORRERY_KERNELS_CPU_PACKED_MATRIX_H_
#define ORRERY_KERNELS_CPU_PACKED_MATRIX_H_

// A weight matrix W [n, k], rearranged once at load so that a product streams it front to back.
//
// Layout, the same for every instruction set: panels of 32 output columns (rows of W), one after the other;
// k is padded to whole steps (32 values, 64 for i8) and n to whole panels with zeros. Inside a panel:
//   f32        [k][32 columns]
//   bf16, f16  [k / 32][2 halves][16 pairs of k][16 columns][2]   a half is one AMX tile B of 1 KiB
//   i8         [k / 64][2 halves][16 quads of k][16 columns][4]   likewise
// f16 checkpoints stay f16 (exact, multiplied in f32) unless bf16 or i8 is asked for: bf16 drops three bits
// of their mantissa in exchange for the tile unit.
// i8 is weight-only and symmetric: column c is quantised to round(w / scale[c]) in [-127, 127] with
// scale[c] = max |w| / 127, so the error of a weight is at most scale[c] / 2.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/dtype.h"

namespace orrery {

// Row-major [rows, k] values as they lie in a checkpoint: kF32, kF16 or kBF16, no alignment needed.
struct MatrixSource {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
};

enum class ColumnOrder : uint8_t {
  kStacked,  // columns in the order of the sources' rows
  kGated,    // n / 2 gate rows, then n / 2 up rows: a panel holds 16 of each side by side, and a product
             // yields silu(gate) * up directly
};

enum class PackError : uint8_t {
  kNone,
  kUnsupported,  // a dtype or a size
  kTooDeep,      // i8 with k above kMaxInt8Depth
  kNotFinite,    // a value of an f16 or i8 matrix: neither product has infinities or NaN
  kNoMemory,
};

class PackedMatrix {
 public:
  // Sums of as many products of two i8 values fit 32 bits: 127 * 127 * k < 2^31.
  static constexpr int64_t kMaxInt8Depth = 131072;
  static constexpr int64_t kPanelColumns = 32;
  static constexpr int64_t kHalfColumns = 16;
  static constexpr int64_t kTileBytes = 1024;  // half of a step, unless f32
  // Values of k in one step of a panel.
  static constexpr int64_t DepthOf(DType dtype) { return dtype == DType::kI8 ? 64 : 32; }

  PackedMatrix() = default;

  // Packs the sources stacked along n, in parallel over panels; `dtype` is kF32, kBF16, kF16 (sources must
  // then be f16) or kI8. Returns nothing, and *error says why, when a dtype is not one of these, a size is
  // below 1, kGated has an odd n, or for another reason of PackError. Holds one copy of the weights: the
  // sources may be unmapped afterwards.
  static std::optional<PackedMatrix> Pack(ThreadPool& pool, std::span<const MatrixSource> sources, int64_t k,
                                          DType dtype, ColumnOrder order = ColumnOrder::kStacked,
                                          PackError* error = nullptr);

  // Writes row `row` of W (0 <= row < n, in source order) to out[k] as f32: an embedding look-up from a
  // matrix that is also the output projection.
  void ReadRow(int64_t row, float* out) const;

  bool empty() const { return panels_ == 0; }
  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  int64_t padded_k() const { return steps() * DepthOf(dtype_); }
  int64_t steps() const { return (k_ + DepthOf(dtype_) - 1) / DepthOf(dtype_); }
  // Columns of a product with this matrix: n, or n / 2 when gated.
  int64_t out_columns() const { return order_ == ColumnOrder::kGated ? n_ / 2 : n_; }
  int64_t panels() const { return panels_; }
  int64_t panel_bytes() const { return kPanelColumns * padded_k() * static_cast<int64_t>(SizeOf(dtype_)); }
  size_t bytes() const { return static_cast<size_t>(panels_ * panel_bytes()); }
  DType dtype() const { return dtype_; }
  ColumnOrder order() const { return order_; }
  const std::byte* panel(int64_t index) const { return data_.data() + index * panel_bytes(); }
  // [panels * 32], in packed column order; null unless i8.
  const float* scales() const { return scales_.as<const float>(); }

 private:
  // Where one packed column comes from; null data is a column of zeros.
  struct Column {
    const std::byte* data = nullptr;
    DType dtype = DType::kF32;
    float inverse_scale = 0;
  };

  // kNone, kUnsupported or kTooDeep; fills the sizes.
  PackError Describe(std::span<const MatrixSource> sources, int64_t k, DType dtype, ColumnOrder order);
  bool Allocate();
  // False where a value that must be finite is not.
  bool PackPanel(std::span<const MatrixSource> sources, int64_t panel);
  void PackStep(const Column& column, int64_t panel, int64_t index, int64_t k);
  Column FindColumn(std::span<const MatrixSource> sources, int64_t panel, int64_t column) const;
  int64_t RowOfColumn(int64_t panel, int64_t column) const;  // row of W, or -1 for padding

  int64_t n_ = 0;
  int64_t k_ = 0;
  int64_t panels_ = 0;
  DType dtype_ = DType::kF32;
  ColumnOrder order_ = ColumnOrder::kStacked;
  AlignedBuffer data_;
  AlignedBuffer scales_;
};

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_PACKED_MATRIX_H_
