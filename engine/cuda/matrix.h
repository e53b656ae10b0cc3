// A weight matrix of the CUDA backend: bf16 or f16, packed by rows, parts stacked as they were given.
#ifndef ORRERY_ENGINE_CUDA_MATRIX_H_
#define ORRERY_ENGINE_CUDA_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/backend.h"
#include "engine/cuda/device.h"

namespace orrery::cuda {

// Kernels read rows 16 bytes at a time.
inline constexpr int64_t kColumnStep = 8;

class DeviceMatrix final : public Matrix {
 public:
  // `dtype` must be bf16 or f16; parts of other float types are converted, rounded to nearest.
  // InvalidArgument says what is not supported, or which value f16 does not hold.
  static absl::StatusOr<std::unique_ptr<Matrix>> Pack(Device& device, absl::Span<const WeightView> parts,
                                                      DType dtype, MatrixKind kind);
  // What Pack returned.
  static const DeviceMatrix& Of(const Matrix& matrix) { return static_cast<const DeviceMatrix&>(matrix); }

  int64_t n() const override { return n_; }
  int64_t k() const override { return k_; }
  DType dtype() const { return dtype_; }
  size_t bytes() const override { return static_cast<size_t>(n_ * k_) * SizeOf(dtype_); }
  const void* data() const { return buffer_->data(); }
  bool gated() const { return kind_ == MatrixKind::kGated; }
  int64_t out_columns() const { return gated() ? n_ / 2 : n_; }

 private:
  DeviceMatrix(std::unique_ptr<Buffer> buffer, int64_t n, int64_t k, DType dtype, MatrixKind kind)
      : buffer_(std::move(buffer)), n_(n), k_(k), dtype_(dtype), kind_(kind) {}

  std::unique_ptr<Buffer> buffer_;  // [n, k]
  int64_t n_, k_;
  DType dtype_;
  MatrixKind kind_;
};

}  // namespace orrery::cuda

#endif  // ORRERY_ENGINE_CUDA_MATRIX_H_
