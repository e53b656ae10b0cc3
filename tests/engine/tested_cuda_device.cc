#include <cuda_runtime_api.h>

#include "tests/engine/tested_cuda.h"

namespace orrery::testing {

std::string WhyNoCuda() {
  const auto device = DescribeCudaDevice();
  return device.ok() ? "" : std::string(device.status().message());
}

absl::StatusOr<CudaParts> OpenTestedCuda(const EngineOptions& options) { return OpenCudaDevice(options); }

std::vector<float> ToHost(const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.rows * tensor.cols));
  cudaMemcpy(values.data(), tensor.data, values.size() * sizeof(float), cudaMemcpyDeviceToHost);
  return values;
}

}  // namespace orrery::testing
