#include "tests/engine/emulated_device.h"
#include "tests/engine/tested_cuda.h"

namespace orrery::testing {
namespace {

int graph_launches = 0;

}  // namespace

std::string WhyNoCuda() { return ""; }

absl::StatusOr<CudaParts> OpenTestedCuda(const EngineOptions& /*options*/) {
  return CudaParts{.device = NewEmulatedDevice({.graph_launches = &graph_launches, .lazy = true}),
                   .gemm = NewPlainGemm()};
}

int GraphLaunches() { return graph_launches; }

std::vector<float> ToHost(const Tensor& tensor) {
  const auto* const first = static_cast<const float*>(tensor.data);
  return {first, first + tensor.rows * tensor.cols};
}

}  // namespace orrery::testing
