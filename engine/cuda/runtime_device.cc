#include "engine/cuda/runtime_device.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/narrow.h"

namespace orrery::cuda {
namespace {

// mma and cp.async, which the kernels are written in.
constexpr int kLeastComputeMajor = 8;

std::string VersionText(int version) { return absl::StrCat(version / 1000, ".", version % 1000 / 10); }

class DeviceBuffer final : public Buffer {
 public:
  DeviceBuffer(void* data, size_t bytes) : data_(data), bytes_(bytes) {}
  ~DeviceBuffer() override { cudaFree(data_); }
  void* data() const override { return data_; }
  size_t bytes() const override { return bytes_; }

 private:
  void* data_;
  size_t bytes_;
};

class PinnedBuffer final : public Buffer {
 public:
  PinnedBuffer(void* data, size_t bytes) : data_(data), bytes_(bytes) {}
  ~PinnedBuffer() override { cudaFreeHost(data_); }
  void* data() const override { return data_; }
  size_t bytes() const override { return bytes_; }

 private:
  void* data_;
  size_t bytes_;
};

class RuntimeGraph final : public Graph {
 public:
  explicit RuntimeGraph(cudaGraphExec_t graph) : graph_(graph) {}
  ~RuntimeGraph() override { cudaGraphExecDestroy(graph_); }
  cudaGraphExec_t get() const { return graph_; }

 private:
  cudaGraphExec_t graph_;
};

class RuntimeEvent final : public Event {
 public:
  explicit RuntimeEvent(cudaEvent_t event) : event_(event) {}
  ~RuntimeEvent() override { cudaEventDestroy(event_); }
  cudaEvent_t get() const { return event_; }

  absl::Status status;  // of what was refused before it

 private:
  cudaEvent_t event_;
};

class RuntimeDevice final : public Device {
 public:
  RuntimeDevice(cudaStream_t stream, cudaStream_t recording, int multiprocessors)
      : stream_(stream), recording_(recording), multiprocessors_(multiprocessors) {}
  ~RuntimeDevice() override {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
    cudaStreamDestroy(recording_);
  }

  absl::StatusOr<int64_t> FreeBytes() override {
    size_t free = 0, total = 0;
    if (absl::Status status = StatusOf(cudaMemGetInfo(&free, &total), "cudaMemGetInfo"); !status.ok()) {
      return status;
    }
    return static_cast<int64_t>(free);
  }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) override {
    bytes = std::max<size_t>(bytes, 1);
    void* data = nullptr;
    const cudaError_t error = cudaMalloc(&data, bytes);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // it is told here, not by the next Synchronize
      return NoMemory(bytes);
    }
    if (absl::Status status = StatusOf(error, "cudaMalloc"); !status.ok()) return status;
    auto buffer = std::make_unique<DeviceBuffer>(data, bytes);
    cudaError_t zeroed = cudaMemsetAsync(data, 0, bytes, stream_);
    // Other streams may use it, too.
    if (zeroed == cudaSuccess) zeroed = cudaStreamSynchronize(stream_);
    if (absl::Status status = StatusOf(zeroed, "cudaMemset"); !status.ok()) return status;
    return buffer;
  }

  absl::StatusOr<std::unique_ptr<Buffer>> AllocateHost(size_t bytes) override {
    void* data = nullptr;
    const cudaError_t error = cudaHostAlloc(&data, std::max<size_t>(bytes, 1), cudaHostAllocDefault);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return absl::ResourceExhaustedError(
          absl::StrCat("no memory of the host for ", bytes, " bytes that the device can reach"));
    }
    if (absl::Status status = StatusOf(error, "cudaHostAlloc"); !status.ok()) return status;
    return std::make_unique<PinnedBuffer>(data, bytes);
  }

  void Upload(void* device, const void* host, size_t bytes) override {
    Enqueue(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_), "upload");
  }
  void Download(void* host, const void* device, size_t bytes) override {
    Enqueue(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_), "download");
  }
  void Copy(void* to, const void* from, size_t bytes) override {
    Enqueue(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "copy");
  }

  absl::StatusOr<Stream> BeginRecording() override {
    Enqueue(cudaGetLastError(), "launch");  // of what was launched so far; what follows is the recording's
    // Relaxed: this thread goes on with stream_ meanwhile, and may wait and allocate for it.
    if (absl::Status status =
            StatusOf(cudaStreamBeginCapture(recording_, cudaStreamCaptureModeRelaxed), "capture");
        !status.ok()) {
      cudaGetLastError();  // it is told here, not with the step
      return status;
    }
    return recording_;
  }
  absl::StatusOr<std::unique_ptr<Graph>> EndRecording() override {
    cudaGraph_t recorded = nullptr;
    cudaGraphExec_t graph = nullptr;
    cudaError_t error = cudaStreamEndCapture(recording_, &recorded);
    if (error == cudaSuccess) error = cudaGraphInstantiate(&graph, recorded, 0);
    if (recorded != nullptr) cudaGraphDestroy(recorded);
    if (error != cudaSuccess) {
      // It is told here, not with the step; another one is an eager launch's and the step's.
      if (const cudaError_t last = cudaGetLastError(); last != error && !IsOfRecording(last)) {
        Enqueue(last, "launch");
      }
      return StatusOf(error, "capture");
    }
    return std::make_unique<RuntimeGraph>(graph);
  }
  void Launch(const Graph& graph) override {
    Enqueue(cudaGraphLaunch(static_cast<const RuntimeGraph&>(graph).get(), stream_), "graph");
  }

  absl::StatusOr<std::unique_ptr<Event>> NewEvent() override {
    cudaEvent_t event = nullptr;
    if (absl::Status status =
            StatusOf(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
        !status.ok()) {
      return status;
    }
    return std::make_unique<RuntimeEvent>(event);
  }
  void Record(Event& event) override {
    auto& own = static_cast<RuntimeEvent&>(event);
    Enqueue(cudaEventRecord(own.get(), stream_), "event");
    own.status = TakeRefused();
  }
  absl::Status Wait(Event& event) override {
    auto& own = static_cast<RuntimeEvent&>(event);
    absl::Status status = std::exchange(own.status, absl::OkStatus());
    status.Update(StatusOf(cudaEventSynchronize(own.get()), "kernel"));
    return OrLost(std::move(status));
  }
  absl::Status Synchronize() override {
    absl::Status status = TakeRefused();
    status.Update(StatusOf(cudaStreamSynchronize(stream_), "kernel"));
    return OrLost(std::move(status));
  }

  Stream stream() const override { return stream_; }
  int multiprocessors() const override { return multiprocessors_; }

 private:
  // A launch that was refused leaves its error with the thread, one that failed with the stream.
  absl::Status TakeRefused() {
    absl::Status status = std::exchange(status_, absl::OkStatus());
    status.Update(StatusOf(cudaGetLastError(), "launch"));
    return status;
  }
  static absl::Status NoMemory(size_t bytes) {
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for ", bytes >> 20, " MiB on the device: ", free >> 20, " of ", total >> 20,
                     " MiB are free: lower --kv-cache-tokens, --kv-cache-bytes or --max-step-tokens"));
  }
  static bool IsOfRecording(cudaError_t error) {
    return error == cudaSuccess ||
           (error >= cudaErrorStreamCaptureUnsupported && error <= cudaErrorStreamCaptureWrongThread);
  }
  // What a kernel breaks (an address that is none, a trap) stays broken until the process ends.
  absl::Status OrLost(absl::Status status) const {
    if (status.ok() || cudaStreamSynchronize(stream_) == cudaSuccess) return status;
    return absl::DataLossError(status.message());
  }
  void Enqueue(cudaError_t error, absl::string_view what) {
    if (error != cudaSuccess) status_.Update(StatusOf(error, what));
  }

  const cudaStream_t stream_;
  const cudaStream_t recording_;  // runs nothing
  const int multiprocessors_;
  absl::Status status_;  // the first error of a copy since TakeRefused
};

// One small kernel from end to end.
absl::Status Probe(Device& device) {
  constexpr int64_t kCount = 8;
  auto in = device.Allocate(kCount * sizeof(float));
  if (!in.ok()) return in.status();
  auto out = device.Allocate(kCount * 2);
  if (!out.ok()) return out.status();
  Narrow(device.stream(),
         {.in = static_cast<const float*>((*in)->data()), .out = (*out)->data(), .count = kCount});
  return device.Synchronize();
}

}  // namespace

absl::Status StatusOf(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message =
      absl::StrCat("CUDA ", what, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
  return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(message)
                                            : absl::InternalError(message);
}

absl::StatusOr<DeviceInfo> FindDevice() {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) return absl::NotFoundError("no NVIDIA driver (libcuda.so.1 is missing or does not start)");
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorInsufficientDriver) {
    return absl::NotFoundError(absl::StrCat("the NVIDIA driver is too old: it has CUDA ", VersionText(driver),
                                            ", this build needs ", runtime / 1000, ".0"));
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
    return absl::NotFoundError("no CUDA device (or CUDA_VISIBLE_DEVICES hides it)");
  }
  if (error != cudaSuccess) return absl::NotFoundError(StatusOf(error, "cudaGetDeviceCount").message());
  cudaDeviceProp properties;
  if (const cudaError_t failed = cudaGetDeviceProperties(&properties, 0); failed != cudaSuccess) {
    return absl::NotFoundError(StatusOf(failed, "cudaGetDeviceProperties").message());
  }
  if (properties.major < kLeastComputeMajor) {
    return absl::NotFoundError(absl::StrCat(properties.name, " has compute capability ", properties.major,
                                            ".", properties.minor, ", ", kLeastComputeMajor,
                                            ".0 or later is supported"));
  }
  return DeviceInfo{.name = properties.name,
                    .compute_major = properties.major,
                    .compute_minor = properties.minor,
                    .multiprocessors = properties.multiProcessorCount,
                    .driver_version = driver};
}

absl::StatusOr<std::unique_ptr<Device>> NewRuntimeDevice(const DeviceInfo& info) {
  cudaStream_t stream = nullptr, recording = nullptr;
  cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&recording, cudaStreamNonBlocking);
  if (error != cudaSuccess) {
    if (stream != nullptr) cudaStreamDestroy(stream);
    return StatusOf(error, "stream");
  }
  std::unique_ptr<Device> device = std::make_unique<RuntimeDevice>(stream, recording, info.multiprocessors);
  if (absl::Status status = Probe(*device); !status.ok()) {
    return absl::NotFoundError(absl::StrCat(info.name, " (compute capability ", info.compute_major, ".",
                                            info.compute_minor,
                                            ") does not run this build's kernels: ", status.message()));
  }
  return device;
}

}  // namespace orrery::cuda
