// The end of a product, shared by the kernels: turns one row of sums of a panel into values of `out`.
//
// Included inside an anonymous namespace by files that are compiled for one instruction set, so that no
// function here is shared between them; plain loops that the compiler vectorises for each.

// Sixteen columns: one AVX-512 register, two or four of the narrower ones.
typedef float F16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));

inline F16 LoadColumns(const float* data) {
  F16 v;
  __builtin_memcpy(&v, data, sizeof(v));
  return v;
}

// The first `count` of 16 columns, the rest zero.
inline F16 LoadColumns(const float* data, int64_t count) {
  if (count >= 16) return LoadColumns(data);
  F16 v = {};
  for (int64_t i = 0; i < count; ++i) v[i] = data[i];
  return v;
}

// exp(x) for x in [-87, 88] (clamped), within 2 ulp: 2^n times a polynomial on [-ln2/2, ln2/2].
inline F16 ExpClamped(F16 x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds to an integer
  x = x < -87.0f ? F16{} - 87.0f : x;
  x = x > 88.0f ? F16{} + 88.0f : x;
  const F16 n = (x * 1.44269504f + kRound) - kRound;
  const F16 r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  F16 p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * (F16)((__builtin_convertvector(n, I16) + 127) << 23);
}

inline void StoreColumns(const MatMulTask& task, int64_t row, int64_t column, F16 values, int64_t count) {
  if (task.out.dtype == DType::kF32) {
    float* out = static_cast<float*>(task.out.data) + row * task.out.stride + column;
    if (count >= 16) {
      __builtin_memcpy(out, &values, sizeof(values));
    } else {
      for (int64_t i = 0; i < count; ++i) out[i] = values[i];
    }
  } else {
    uint16_t* out = static_cast<uint16_t*>(task.out.data) + row * task.out.stride + column;
    uint16_t bits[16];
    for (int i = 0; i < 16; ++i) bits[i] = BF16FromF32(values[i]);
    if (count >= 16) {
      __builtin_memcpy(out, bits, sizeof(bits));
    } else {
      for (int64_t i = 0; i < count; ++i) out[i] = bits[i];
    }
  }
}

// Residual and store of 16 columns of `out` from `column`.
inline void FinishColumns(const MatMulTask& task, int64_t row, int64_t column, F16 values) {
  const int64_t count = task.weight->out_columns() - column;
  if (count <= 0) return;
  if (const float* residual = task.epilogue.residual; residual != nullptr) {
    values += LoadColumns(residual + row * task.epilogue.residual_stride + column, count);
  }
  StoreColumns(task, row, column, values, count);
}

// low and high: sums of columns 0..15 and 16..31 of the panel.
inline void FinishRow(const MatMulTask& task, int64_t row, int64_t panel, const float* low_sums,
                      const float* high_sums) {
  constexpr int64_t kHalf = PackedMatrix::kHalfColumns;
  const PackedMatrix& weight = *task.weight;
  F16 low = LoadColumns(low_sums), high = LoadColumns(high_sums);
  if (const float* scales = weight.scales(); scales != nullptr) {
    scales += panel * PackedMatrix::kPanelColumns;
    low *= LoadColumns(scales);
    high *= LoadColumns(scales + kHalf);
  }
  const float* const bias = task.epilogue.bias;
  if (weight.order() == ColumnOrder::kStacked) {
    const int64_t column = panel * PackedMatrix::kPanelColumns;
    if (bias != nullptr) {
      low += LoadColumns(bias + column, weight.n() - column);
      high += LoadColumns(bias + column + kHalf, weight.n() - column - kHalf);
    }
    FinishColumns(task, row, column, low);
    FinishColumns(task, row, column + kHalf, high);
    return;
  }
  const int64_t column = panel * kHalf, columns = weight.out_columns();
  if (bias != nullptr) {
    low += LoadColumns(bias + column, columns - column);
    high += LoadColumns(bias + columns + column, columns - column);
  }
  FinishColumns(task, row, column, low / (1.0f + ExpClamped(-low)) * high);
}
