#include <cuda_runtime_api.h>

#include <memory>
#include <utility>

#include "tests/engine/tested_cuda.h"

namespace orrery::testing {
namespace {

int graph_launches = 0;

// The machine's, with its launches of recorded steps counted.
class CountingDevice final : public cuda::Device {
 public:
  explicit CountingDevice(std::unique_ptr<cuda::Device> device) : device_(std::move(device)) {}

  absl::StatusOr<int64_t> FreeBytes() override { return device_->FreeBytes(); }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) override { return device_->Allocate(bytes); }
  absl::StatusOr<std::unique_ptr<Buffer>> AllocateHost(size_t bytes) override {
    return device_->AllocateHost(bytes);
  }
  void Upload(void* device, const void* host, size_t bytes) override { device_->Upload(device, host, bytes); }
  void Download(void* host, const void* device, size_t bytes) override {
    device_->Download(host, device, bytes);
  }
  void Copy(void* to, const void* from, size_t bytes) override { device_->Copy(to, from, bytes); }
  absl::StatusOr<cuda::Stream> BeginRecording() override { return device_->BeginRecording(); }
  absl::StatusOr<std::unique_ptr<cuda::Graph>> EndRecording() override { return device_->EndRecording(); }
  void Launch(const cuda::Graph& graph) override {
    ++graph_launches;
    device_->Launch(graph);
  }
  absl::StatusOr<std::unique_ptr<cuda::Event>> NewEvent() override { return device_->NewEvent(); }
  void Record(cuda::Event& event) override { device_->Record(event); }
  absl::Status Wait(cuda::Event& event) override { return device_->Wait(event); }
  absl::Status Synchronize() override { return device_->Synchronize(); }
  cuda::Stream stream() const override { return device_->stream(); }
  int multiprocessors() const override { return device_->multiprocessors(); }

 private:
  const std::unique_ptr<cuda::Device> device_;
};

}  // namespace

std::string WhyNoCuda() {
  const auto device = DescribeCudaDevice();
  return device.ok() ? "" : std::string(device.status().message());
}

absl::StatusOr<CudaParts> OpenTestedCuda(const EngineOptions& options) {
  absl::StatusOr<CudaParts> parts = OpenCudaDevice(options);
  if (parts.ok()) parts->device = std::make_unique<CountingDevice>(std::move(parts->device));
  return parts;
}

int GraphLaunches() { return graph_launches; }

std::vector<float> ToHost(const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.rows * tensor.cols));
  cudaMemcpy(values.data(), tensor.data, values.size() * sizeof(float), cudaMemcpyDeviceToHost);
  return values;
}

}  // namespace orrery::testing
