// The product on vector registers of kBytes bytes, for every dtype of W. Included inside an anonymous
// namespace by a file compiled for one instruction set, which defines
//   kBytes    width of a vector
//   kMaxRows  rows multiplied at once: 2 * kMaxRows accumulators must fit in the registers
// Activations are packed as f32 groups of kMaxRows rows, [k][rows of the group], so that a step over k reads
// them front to back.

constexpr int kLanes = kBytes / 4;
typedef float F __attribute__((vector_size(kBytes)));
typedef uint32_t U __attribute__((vector_size(kBytes)));

inline F LoadF(const std::byte* data) {
  F v;
  __builtin_memcpy(&v, data, sizeof(v));
  return v;
}

inline U LoadU(const std::byte* data) {
  U v;
  __builtin_memcpy(&v, data, sizeof(v));
  return v;
}

// Widens value `i` of the group of k that lies in each 32-bit lane (packed_matrix.h). All are exact.
template <DType kType>
inline F Lane(U word, int i) {
  if constexpr (kType == DType::kBF16) {
    return (F)(i == 0 ? word << 16 : word & 0xffff0000u);
  } else if constexpr (kType == DType::kF16) {
    const U bits = i == 0 ? word & 0xffffu : word >> 16;
    // Rebasing the exponent by a product is exact for subnormals too (Pack refuses f16 weights that are
    // not finite).
    const F magnitude = (F)((bits & 0x7fffu) << 13) * 0x1p112f;
    return (F)((U)magnitude | (bits & 0x8000u) << 16);
  } else {
    // With its sign flipped a byte is value + 128; placed below the exponent of 2^23 it reads 2^23 + that.
    return (F)(((word ^ 0x80808080u) >> (8 * i) & 0xffu) | 0x4b000000u) - (8388608.0f + 128.0f);
  }
}

// Accumulates R rows times 2 * kLanes columns from `column` of a panel over all of k.
template <int R, DType kType>
inline void Accumulate(const float* in, const std::byte* panel, int64_t steps, int column, F (&sum)[R][2]) {
  for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = F{};
  if constexpr (kType == DType::kF32) {
    const std::byte* w = panel + column * 4;
    for (int64_t k = 0; k < steps * PackedMatrix::DepthOf(kType);
         ++k, w += PackedMatrix::kPanelColumns * 4, in += R) {
      __builtin_prefetch(w + 4096);
      const F w0 = LoadF(w), w1 = LoadF(w + kBytes);
      for (int r = 0; r < R; ++r) {
        sum[r][0] += in[r] * w0;
        sum[r][1] += in[r] * w1;
      }
    }
  } else {
    constexpr int kGroup = kType == DType::kI8 ? 4 : 2;
    constexpr int64_t kHalfBytes = PackedMatrix::kTileBytes;
    const auto offset = [](int c) { return c / 16 * kHalfBytes + c % 16 * 4; };
    const std::byte* w = panel;
    const int64_t first = offset(column), second = offset(column + kLanes);
    for (int64_t step = 0; step < steps; ++step, w += 2 * kHalfBytes) {
      for (int64_t row = 0; row < kHalfBytes; row += 64, in += kGroup * R) {
        __builtin_prefetch(w + first + row + 4096);
        if (second - first >= kHalfBytes) __builtin_prefetch(w + second + row + 4096);
        const U u0 = LoadU(w + first + row), u1 = LoadU(w + second + row);
#pragma GCC unroll 4
        for (int i = 0; i < kGroup; ++i) {
          const F w0 = Lane<kType>(u0, i), w1 = Lane<kType>(u1, i);
          for (int r = 0; r < R; ++r) {
            sum[r][0] += in[i * R + r] * w0;
            sum[r][1] += in[i * R + r] * w1;
          }
        }
      }
    }
  }
}

template <int R, DType kType>
void MultiplyGroup(const MatMulTask& task, int64_t first_row, int64_t panel) {
  const PackedMatrix& weight = *task.weight;
  const int64_t padded_k = weight.padded_k();
  const float* in = reinterpret_cast<const float*>(task.packed_in) + first_row * padded_k;
  alignas(64) float sums[R][PackedMatrix::kPanelColumns];
  for (int column = 0; column < PackedMatrix::kPanelColumns; column += 2 * kLanes) {
    F sum[R][2];
    Accumulate<R, kType>(in, weight.panel(panel), weight.steps(), column, sum);
    for (int r = 0; r < R; ++r) __builtin_memcpy(&sums[r][column], sum[r], 2 * kBytes);
  }
  for (int r = 0; r < R; ++r) {
    FinishRow(task, first_row + r, panel, sums[r], sums[r] + PackedMatrix::kHalfColumns);
  }
}

template <DType kType, int R = kMaxRows>
void MultiplyRest(const MatMulTask& task, int64_t rows, int64_t first_row, int64_t panel) {
  if (rows == R) return MultiplyGroup<R, kType>(task, first_row, panel);
  if constexpr (R > 1) MultiplyRest<kType, R - 1>(task, rows, first_row, panel);
}

template <DType kType>
void MultiplyPanel(const MatMulTask& task, int64_t panel) {
  for (int64_t row = 0; row < task.in.rows; row += kMaxRows) {
    const int64_t left = task.in.rows - row;
    MultiplyRest<kType>(task, left < kMaxRows ? left : kMaxRows, row, panel);
  }
}

void Multiply(MatMulTask& task, int) {
  const int64_t panels = task.weight->panels();
  while (true) {
    const int64_t panel = task.next_chunk.fetch_add(1, std::memory_order_relaxed);
    if (panel >= panels) return;
    switch (task.weight->dtype()) {
      case DType::kF32:
        MultiplyPanel<DType::kF32>(task, panel);
        break;
      case DType::kBF16:
        MultiplyPanel<DType::kBF16>(task, panel);
        break;
      case DType::kF16:
        MultiplyPanel<DType::kF16>(task, panel);
        break;
      default:
        MultiplyPanel<DType::kI8>(task, panel);
    }
  }
}

void Pack(MatMulTask& task) {
  const int64_t k = task.weight->k(), padded_k = task.weight->padded_k(), rows = task.in.rows;
  constexpr int64_t kPiece = 1024;
  const int64_t pieces = (padded_k + kPiece - 1) / kPiece;
  const int64_t groups = (rows + kMaxRows - 1) / kMaxRows;
  while (true) {
    const int64_t unit = task.next_pack.fetch_add(1, std::memory_order_relaxed);
    if (unit >= groups * pieces) return;
    const int64_t first = unit / pieces * kMaxRows;
    const int64_t group = rows - first < kMaxRows ? rows - first : kMaxRows;
    const int64_t begin = unit % pieces * kPiece;
    const int64_t end = begin + kPiece < padded_k ? begin + kPiece : padded_k;
    const int64_t stop = end < k ? end : k;
    float* out = reinterpret_cast<float*>(task.packed_in) + first * padded_k;
    for (int64_t r = 0; r < group; ++r) {
      if (task.in.dtype == DType::kF32) {
        const float* in = static_cast<const float*>(task.in.data) + (first + r) * task.in.stride;
        for (int64_t i = begin; i < stop; ++i) out[i * group + r] = in[i];
      } else {
        const uint16_t* in = static_cast<const uint16_t*>(task.in.data) + (first + r) * task.in.stride;
        for (int64_t i = begin; i < stop; ++i) out[i * group + r] = F32FromBF16(in[i]);
      }
      for (int64_t i = stop; i < end; ++i) out[i * group + r] = 0;
    }
  }
}
