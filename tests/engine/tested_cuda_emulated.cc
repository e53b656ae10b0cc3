#include "tests/engine/emulated_device.h"
#include "tests/engine/tested_cuda.h"

namespace orrery::testing {

std::string WhyNoCuda() { return ""; }

absl::StatusOr<CudaParts> OpenTestedCuda(const EngineOptions& /*options*/) {
  return CudaParts{.device = NewEmulatedDevice({.lazy = true}), .gemm = NewPlainGemm()};
}

std::vector<float> ToHost(const Tensor& tensor) {
  const auto* const first = static_cast<const float*>(tensor.data);
  return {first, first + tensor.rows * tensor.cols};
}

}  // namespace orrery::testing
