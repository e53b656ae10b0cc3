// Matrix products by cuBLASLt, each shape with an algorithm of its own.
//
// The library's heuristic is a guess: of its first candidates for a shape and a bucket of rows the fastest is
// taken, timed with nothing in the caches when the shape first comes up, and kept in an AlgorithmCache.
// Batch-invariant, nothing is timed and a shape has one algorithm for any number of rows, which adds up a row
// in one sequence (no split of k): a row's bits do not depend on the others.
#ifndef ORRERY_ENGINE_CUDA_CUBLAS_GEMM_H_
#define ORRERY_ENGINE_CUDA_CUBLAS_GEMM_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/cuda/gemm.h"
#include "engine/cuda/runtime_device.h"

namespace orrery::cuda {

struct CublasGemmOptions {
  bool batch_invariant = false;
  std::string cache_dir;  // empty: what was found is forgotten
};

// NotFound where the library is missing.
absl::StatusOr<std::unique_ptr<Gemm>> NewCublasGemm(const DeviceInfo& device,
                                                    const CublasGemmOptions& options);

}  // namespace orrery::cuda

#endif  // ORRERY_ENGINE_CUDA_CUBLAS_GEMM_H_
