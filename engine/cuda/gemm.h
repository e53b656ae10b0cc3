// The matrix product on a CUDA device; few rows have a kernel of their own (kernels/cuda/skinny_matmul.h).
#ifndef ORRERY_ENGINE_CUDA_GEMM_H_
#define ORRERY_ENGINE_CUDA_GEMM_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cuda/stream.h"
#include "kernels/dtype.h"

namespace orrery::cuda {

// out = x W^T + bias + residual, matrices packed by rows, products accumulated in f32. All pointers are the
// device's, matrices aligned to 16 bytes.
struct GemmArgs {
  const void* x = nullptr;  // [rows, k]
  int64_t rows = 0;
  const void* weight = nullptr;  // [n, k]
  DType dtype = DType::kBF16;    // of x and weight: bf16 or f16
  int64_t n = 0;
  int64_t k = 0;                    // a multiple of 8
  const float* bias = nullptr;      // [n] or null; null where out is not f32
  const float* residual = nullptr;  // [rows, n] or null, may be out; null where out is not f32
  void* out = nullptr;              // [rows, n]
  DType out_dtype = DType::kF32;    // f32, or that of x and weight
};

class Gemm {
 public:
  virtual ~Gemm() = default;
  // Room that every product may use, on the device; null until it was given.
  virtual size_t WorkspaceBytes() const = 0;
  virtual void set_workspace(void* workspace) = 0;
  // In the order of the stream. An error is this one's or an earlier launch's; the device's own are reported
  // when it is synchronised.
  virtual absl::Status Multiply(Stream stream, const GemmArgs& args) = 0;
};

}  // namespace orrery::cuda

#endif  // ORRERY_ENGINE_CUDA_GEMM_H_
