#include "kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

namespace orrery {
namespace {

constexpr int64_t kColumns = PackedMatrix::kPanelColumns;
constexpr int64_t kHalf = PackedMatrix::kHalfColumns;
constexpr int64_t kPiece = 32;  // values of a column converted at once; divides every DepthOf

bool IsSourceDType(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

template <typename T>
T ReadAt(const std::byte* data, int64_t index) {
  T value;
  std::memcpy(&value, data + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

// Widens `count` values from `begin` of a row to f32.
void Widen(const std::byte* row, DType dtype, int64_t begin, int64_t count, float* out) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, row + begin * 4, static_cast<size_t>(count) * 4);
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < count; ++i) out[i] = F32FromBF16(ReadAt<uint16_t>(row, begin + i));
      return;
    case DType::kF16:
      for (int64_t i = 0; i < count; ++i) out[i] = F32FromF16(ReadAt<uint16_t>(row, begin + i));
      return;
    default:
      return;
  }
}

// Offset in bytes, inside a panel, of the value (k, column) of a dtype.
int64_t OffsetOf(DType dtype, int64_t k, int64_t column) {
  if (dtype == DType::kF32) return (k * kColumns + column) * 4;
  const int64_t size = static_cast<int64_t>(SizeOf(dtype));
  const int64_t tile = k / PackedMatrix::DepthOf(dtype) * 2 + column / kHalf;
  const int64_t byte = k % PackedMatrix::DepthOf(dtype) * size;  // of those of the column in its tile
  return tile * PackedMatrix::kTileBytes + byte / 4 * kHalf * 4 + column % kHalf * 4 + byte % 4;
}

// NaN where a value is not finite.
float MaxAbs(const std::byte* row, DType dtype, int64_t k) {
  float values[kPiece];
  float max_abs = 0, poison = 0;
  for (int64_t begin = 0; begin < k; begin += kPiece) {
    const int64_t count = std::min(kPiece, k - begin);
    Widen(row, dtype, begin, count, values);
    for (int64_t i = 0; i < count; ++i) {
      max_abs = std::max(max_abs, std::fabs(values[i]));
      poison += values[i] * 0.0f;
    }
  }
  return max_abs + poison;
}

bool IsFiniteF16(const std::byte* row, int64_t k) {
  bool finite = true;
  for (int64_t i = 0; i < k; ++i) finite &= (ReadAt<uint16_t>(row, i) & 0x7c00) != 0x7c00;
  return finite;
}

// kPiece values of one column in the packed type; `inverse_scale` is for kI8.
void Convert(const float* values, DType dtype, float inverse_scale, std::byte* out) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, values, kPiece * 4);
      return;
    case DType::kBF16:
    case DType::kF16:
      for (int64_t i = 0; i < kPiece; ++i) {
        const uint16_t bits = dtype == DType::kBF16 ? BF16FromF32(values[i]) : F16FromF32(values[i]);
        std::memcpy(out + i * 2, &bits, 2);
      }
      return;
    case DType::kI8:
      for (int64_t i = 0; i < kPiece; ++i) {
        // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even. Where the matrix will be refused, a
        // NaN becomes -127, never UB.
        constexpr float kRound = 12582912.0f;
        const float scaled = (values[i] * inverse_scale + kRound) - kRound;
        const float clamped = std::min(127.0f, std::max(-127.0f, scaled));
        out[i] = static_cast<std::byte>(static_cast<int>(clamped));
      }
      return;
    default:
      return;
  }
}

}  // namespace

std::optional<PackedMatrix> PackedMatrix::Pack(ThreadPool& pool, std::span<const MatrixSource> sources,
                                               int64_t k, DType dtype, ColumnOrder order, PackError* error) {
  PackedMatrix packed;
  PackError unused;
  PackError& found = error == nullptr ? unused : *error;
  found = packed.Describe(sources, k, dtype, order);
  if (found == PackError::kNone && !packed.Allocate()) found = PackError::kNoMemory;
  if (found != PackError::kNone) return std::nullopt;
  std::atomic<bool> finite = true;
  pool.ParallelFor(packed.panels_, 1, [&](int64_t panel, int64_t, int) {
    if (!packed.PackPanel(sources, panel)) finite.store(false, std::memory_order_relaxed);
  });
  if (!finite) {
    found = PackError::kNotFinite;
    return std::nullopt;
  }
  return packed;
}

PackError PackedMatrix::Describe(std::span<const MatrixSource> sources, int64_t k, DType dtype,
                                 ColumnOrder order) {
  if (k < 1 || (!IsSourceDType(dtype) && dtype != DType::kI8)) return PackError::kUnsupported;
  if (dtype == DType::kI8 && k > kMaxInt8Depth) return PackError::kTooDeep;
  k_ = k;
  dtype_ = dtype;
  order_ = order;
  for (const MatrixSource& source : sources) {
    if (source.rows < 1 || !IsSourceDType(source.dtype)) return PackError::kUnsupported;
    if (dtype == DType::kF16 && source.dtype != DType::kF16) return PackError::kUnsupported;
    n_ += source.rows;
  }
  const bool gated = order == ColumnOrder::kGated;
  if (n_ < 1 || (gated && n_ % 2 != 0)) return PackError::kUnsupported;
  const int64_t per_panel = gated ? kHalf : kColumns;
  panels_ = (out_columns() + per_panel - 1) / per_panel;
  return PackError::kNone;
}

bool PackedMatrix::Allocate() {
  data_ = AlignedBuffer::Allocate(bytes());
  if (data_.data() == nullptr) return false;
  if (dtype_ != DType::kI8) return true;
  scales_ = AlignedBuffer::Allocate(static_cast<size_t>(panels_ * kColumns) * sizeof(float));
  return scales_.data() != nullptr;
}

int64_t PackedMatrix::RowOfColumn(int64_t panel, int64_t column) const {
  if (order_ == ColumnOrder::kStacked) {
    const int64_t row = panel * kColumns + column;
    return row < n_ ? row : -1;
  }
  const int64_t row = panel * kHalf + column % kHalf;
  if (row >= n_ / 2) return -1;
  return column < kHalf ? row : n_ / 2 + row;
}

PackedMatrix::Column PackedMatrix::FindColumn(std::span<const MatrixSource> sources, int64_t panel,
                                              int64_t column) const {
  int64_t row = RowOfColumn(panel, column);
  if (row < 0) return {};
  const MatrixSource* source = sources.data();
  while (row >= source->rows) row -= (source++)->rows;
  const int64_t row_bytes = k_ * static_cast<int64_t>(SizeOf(source->dtype));
  return {static_cast<const std::byte*>(source->data) + row * row_bytes, source->dtype, 0};
}

bool PackedMatrix::PackPanel(std::span<const MatrixSource> sources, int64_t panel) {
  Column columns[kColumns];
  bool finite = true;
  for (int64_t c = 0; c < kColumns; ++c) {
    columns[c] = FindColumn(sources, panel, c);
    if (dtype_ == DType::kF16 && columns[c].data != nullptr) finite &= IsFiniteF16(columns[c].data, k_);
    if (dtype_ != DType::kI8) continue;
    const float max_abs = columns[c].data == nullptr ? 0 : MaxAbs(columns[c].data, columns[c].dtype, k_);
    finite &= std::isfinite(max_abs);
    const float scale = max_abs / 127.0f;
    columns[c].inverse_scale = scale >= 0x1p-120f ? 1.0f / scale : 0;  // smaller is zero; avoids 1 / 0
    scales_.as<float>()[panel * kColumns + c] = scale >= 0x1p-120f ? scale : 0;
  }
  // Stretches of 256: long enough to read rows as streams, short enough that the part of the panel they are
  // scattered over stays in the L1 cache.
  constexpr int64_t kStretch = 8 * kPiece;
  for (int64_t begin = 0; begin < padded_k(); begin += kStretch) {
    const int64_t end = std::min(padded_k(), begin + kStretch);
    for (int64_t c = 0; c < kColumns; ++c) {
      for (int64_t k = begin; k < end; k += kPiece) PackStep(columns[c], panel, c, k);
    }
  }
  return finite;
}

void PackedMatrix::PackStep(const Column& column, int64_t panel, int64_t index, int64_t k) {
  alignas(64) std::byte packed[kPiece * 4];
  const int64_t count = column.data == nullptr ? 0 : std::min(kPiece, k_ - k);
  const size_t size = SizeOf(dtype_);
  if (count == kPiece && column.dtype == dtype_) {
    std::memcpy(packed, column.data + k * static_cast<int64_t>(size), kPiece * size);
  } else {
    float values[kPiece] = {};
    if (count > 0) Widen(column.data, column.dtype, k, count, values);
    Convert(values, dtype_, column.inverse_scale, packed);
  }
  // The column's values lie in 32-bit words, one per row of a tile (or of the f32 panel).
  std::byte* out = data_.data() + panel * panel_bytes() + OffsetOf(dtype_, k, index);
  const int64_t stride = dtype_ == DType::kF32 ? kColumns * 4 : kHalf * 4;
  for (size_t word = 0; word < kPiece * size; word += 4, out += stride) std::memcpy(out, packed + word, 4);
}

void PackedMatrix::ReadRow(int64_t row, float* out) const {
  int64_t panel = row / kColumns, column = row % kColumns;
  if (order_ == ColumnOrder::kGated) {
    const int64_t in_side = row % (n_ / 2);
    panel = in_side / kHalf;
    column = in_side % kHalf + (row < n_ / 2 ? 0 : kHalf);
  }
  const std::byte* const base = this->panel(panel);
  for (int64_t k = 0; k < k_; ++k) {
    const std::byte* const value = base + OffsetOf(dtype_, k, column);
    switch (dtype_) {
      case DType::kBF16:
        out[k] = F32FromBF16(*reinterpret_cast<const uint16_t*>(value));
        break;
      case DType::kF16:
        out[k] = F32FromF16(*reinterpret_cast<const uint16_t*>(value));
        break;
      case DType::kI8:
        out[k] =
            static_cast<float>(*reinterpret_cast<const int8_t*>(value)) * scales()[panel * kColumns + column];
        break;
      default:
        out[k] = *reinterpret_cast<const float*>(value);
    }
  }
}

}  // namespace orrery
