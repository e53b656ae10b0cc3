// The end of a product, shared by the kernels: turns one row of sums of a panel into values of `out`.
//
// Included inside an anonymous namespace by files that are compiled for one instruction set, so that no
// function here is shared between them; plain loops that the compiler vectorises for each.

// exp(x) for x in [-87, 88] (clamped), within 2 ulp: 2^n times a polynomial on [-ln2/2, ln2/2].
inline float ExpClamped(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds to an integer
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float n = (x * 1.44269504f + kRound) - kRound;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * __builtin_bit_cast(float, (static_cast<int32_t>(n) + 127) << 23);
}

// low and high: sums of columns 0..15 and 16..31 of the panel.
inline void FinishRow(const MatMulTask& task, int64_t row, int64_t panel, const float* low,
                      const float* high) {
  constexpr int64_t kHalf = PackedMatrix::kHalfColumns;
  const PackedMatrix& weight = *task.weight;
  const bool gated = weight.order() == ColumnOrder::kGated;
  const int64_t width = gated ? kHalf : PackedMatrix::kPanelColumns;
  const int64_t first = panel * width;
  const int64_t left = weight.out_columns() - first;
  const int64_t count = left < width ? left : width;

  float values[PackedMatrix::kPanelColumns];
  for (int64_t i = 0; i < kHalf; ++i) {
    values[i] = low[i];
    values[kHalf + i] = high[i];
  }
  if (const float* scales = weight.scales(); scales != nullptr) {
    scales += panel * PackedMatrix::kPanelColumns;
    for (int64_t i = 0; i < PackedMatrix::kPanelColumns; ++i) values[i] *= scales[i];
  }
  if (const float* bias = task.epilogue.bias; bias != nullptr) {
    for (int64_t i = 0; i < count; ++i) values[i] += bias[first + i];
    if (gated) {
      bias += weight.n() / 2;
      for (int64_t i = 0; i < count; ++i) values[kHalf + i] += bias[first + i];
    }
  }
  if (gated) {
    for (int64_t i = 0; i < kHalf; ++i) {
      values[i] = values[i] / (1.0f + ExpClamped(-values[i])) * values[kHalf + i];
    }
  }
  if (task.epilogue.residual != nullptr) {
    const float* residual = task.epilogue.residual + row * task.epilogue.residual_stride + first;
    for (int64_t i = 0; i < count; ++i) values[i] += residual[i];
  }
  if (task.out.dtype == DType::kF32) {
    float* out = static_cast<float*>(task.out.data) + row * task.out.stride + first;
    for (int64_t i = 0; i < count; ++i) out[i] = values[i];
  } else {
    uint16_t* out = static_cast<uint16_t*>(task.out.data) + row * task.out.stride + first;
    for (int64_t i = 0; i < count; ++i) out[i] = BF16FromF32(values[i]);
  }
}
