#include "tests/engine/emulated_device.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/dtype.h"
#include "kernels/emulate/launch.h"

namespace orrery::testing {
namespace {

// Live allocations of the device, by address; buffers give theirs back also when the device is gone.
struct Heap {
  std::map<const std::byte*, size_t> sizes;
  size_t free_bytes = 0;

  bool Holds(const void* address, size_t bytes) const {
    const auto* const first = static_cast<const std::byte*>(address);
    auto after = sizes.upper_bound(first);
    if (after == sizes.begin()) return false;
    const auto& [begin, size] = *--after;
    return static_cast<size_t>(first - begin) <= size && bytes <= size - static_cast<size_t>(first - begin);
  }
};

// 64 bytes at a time, as allocations are aligned to as many.
struct alignas(64) Line {
  std::byte bytes[64];
};

class EmulatedBuffer final : public Buffer {
 public:
  EmulatedBuffer(std::shared_ptr<Heap> heap, size_t bytes)
      : heap_(std::move(heap)), lines_((bytes + sizeof(Line) - 1) / sizeof(Line)), bytes_(bytes) {
    if (heap_ == nullptr) return;
    heap_->free_bytes -= bytes_;
    heap_->sizes.emplace(static_cast<const std::byte*>(data()), bytes_);
  }
  ~EmulatedBuffer() override {
    if (heap_ == nullptr) return;
    heap_->free_bytes += bytes_;
    heap_->sizes.erase(static_cast<const std::byte*>(data()));
  }
  void* data() const override { return const_cast<Line*>(lines_.data()); }
  size_t bytes() const override { return bytes_; }

 private:
  std::shared_ptr<Heap> heap_;  // null: memory of the host
  std::vector<Line> lines_;     // zeros
  size_t bytes_;
};

class EmulatedGraph final : public cuda::Graph {
 public:
  explicit EmulatedGraph(emulate::Work work) : work_(std::move(work)) {}
  void Run() const {
    for (const std::function<void()>& work : work_) work();
  }

 private:
  emulate::Work work_;
};

struct EmulatedEvent final : cuda::Event {
  absl::Status status;
  bool passed = true;
};

class EmulatedDevice final : public cuda::Device {
 public:
  explicit EmulatedDevice(const EmulatedDeviceOptions& options) : options_(options) {
    heap_->free_bytes = options.memory_bytes;
    if (options.lazy) emulate::Defer(this, &queue_);
  }
  ~EmulatedDevice() override { emulate::Defer(this, nullptr); }

  absl::StatusOr<int64_t> FreeBytes() override { return static_cast<int64_t>(heap_->free_bytes); }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) override {
    if (bytes > heap_->free_bytes) {
      return absl::ResourceExhaustedError(absl::StrCat("no memory for ", bytes,
                                                       " bytes on the device: ", heap_->free_bytes, " of ",
                                                       options_.memory_bytes, " are free"));
    }
    return std::make_unique<EmulatedBuffer>(heap_, bytes);
  }
  absl::StatusOr<std::unique_ptr<Buffer>> AllocateHost(size_t bytes) override {
    return std::make_unique<EmulatedBuffer>(nullptr, bytes);
  }

  void Upload(void* device, const void* host, size_t bytes) override {
    if (Check("upload", device, bytes)) emulate::Enqueue(this, [=] { std::memcpy(device, host, bytes); });
  }
  void Download(void* host, const void* device, size_t bytes) override {
    if (!Check("download", device, bytes)) return;
    if (options_.lazy) return queue_.push_back([=] { std::memcpy(host, device, bytes); });
    const auto* const from = static_cast<const std::byte*>(device);
    queue_.push_back([host, copy = std::vector<std::byte>(from, from + bytes)] {
      std::memcpy(host, copy.data(), copy.size());
    });
  }
  void Copy(void* to, const void* from, size_t bytes) override {
    if (Check("copy", to, bytes) && Check("copy", from, bytes)) {
      emulate::Enqueue(this, [=] { std::memcpy(to, from, bytes); });
    }
  }

  absl::StatusOr<cuda::Stream> BeginRecording() override {
    if (!options_.records) return absl::InternalError("no recording");
    const auto stream = reinterpret_cast<cuda::Stream>(&recorded_);
    recorded_.clear();
    emulate::Defer(stream, &recorded_);
    return stream;
  }
  absl::StatusOr<std::unique_ptr<cuda::Graph>> EndRecording() override {
    emulate::Defer(&recorded_, nullptr);
    return std::make_unique<EmulatedGraph>(std::move(recorded_));
  }
  void Launch(const cuda::Graph& graph) override {
    if (options_.graph_launches != nullptr) ++*options_.graph_launches;
    emulate::Enqueue(this, [&graph] { static_cast<const EmulatedGraph&>(graph).Run(); });
  }

  absl::StatusOr<std::unique_ptr<cuda::Event>> NewEvent() override {
    return std::make_unique<EmulatedEvent>();
  }
  void Record(cuda::Event& event) override {
    auto& own = static_cast<EmulatedEvent&>(event);
    own.passed = false;
    own.status = TakeStatus();
    queue_.push_back([&own, this] {
      if (options_.lazy) own.status.Update(KernelStatus());
      own.passed = true;
    });
  }
  absl::Status Wait(cuda::Event& event) override {
    auto& own = static_cast<EmulatedEvent&>(event);
    size_t done = 0;
    while (!own.passed && done < queue_.size()) queue_[done++]();
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(done));
    if (Lost()) return LostStatus();
    return std::exchange(own.status, absl::OkStatus());
  }
  absl::Status Synchronize() override {
    for (const std::function<void()>& work : queue_) work();
    queue_.clear();
    return Lost() ? LostStatus() : TakeStatus();
  }

  // A name that the emulator may know; nothing is there to be read.
  cuda::Stream stream() const override {
    return reinterpret_cast<cuda::Stream>(const_cast<EmulatedDevice*>(this));
  }
  int multiprocessors() const override { return options_.multiprocessors; }

 private:
  bool Lost() const { return options_.lost != nullptr && *options_.lost; }
  static absl::Status LostStatus() { return absl::DataLossError("the device is lost"); }
  static absl::Status KernelStatus() {
    const auto failure = emulate::TakeFailure();
    if (!failure) return absl::OkStatus();
    const auto kind = NameOf(failure->kind);
    return absl::InternalError(
        absl::StrCat("kernel: ", absl::string_view(kind.data(), kind.size()), ": ", failure->message));
  }
  // Of what was enqueued, and of what has run.
  absl::Status TakeStatus() {
    absl::Status status = std::exchange(status_, absl::OkStatus());
    status.Update(KernelStatus());
    return status;
  }
  bool Check(absl::string_view what, const void* address, size_t bytes) {
    if (heap_->Holds(address, bytes)) return true;
    status_.Update(absl::InternalError(
        absl::StrCat(what, " of ", bytes, " bytes outside any allocation of the device")));
    return false;
  }

  const EmulatedDeviceOptions options_;
  const std::shared_ptr<Heap> heap_ = std::make_shared<Heap>();
  emulate::Work recorded_;  // since BeginRecording
  emulate::Work queue_;     // what waits for somebody to wait for it
  absl::Status status_;
};

// Its workspace is there and must have been given.
class PlainGemm final : public cuda::Gemm {
 public:
  explicit PlainGemm(const bool* fails) : fails_(fails) {}
  size_t WorkspaceBytes() const override { return 64; }
  void set_workspace(void* workspace) override { workspace_ = workspace; }
  absl::Status Multiply(cuda::Stream stream, const cuda::GemmArgs& args) override {
    if (fails_ != nullptr && *fails_) return absl::InternalError("a product that fails");
    if (workspace_ == nullptr) return absl::InternalError("a product without a workspace");
    const bool narrow = args.out_dtype != DType::kF32;
    if (narrow && args.out_dtype != args.dtype) return absl::InternalError("a product in another type");
    if (narrow && (args.bias != nullptr || args.residual != nullptr)) {
      return absl::InternalError("a product in 16 bits with an addition");
    }
    emulate::Enqueue(stream, [args] { Compute(args); });
    return absl::OkStatus();
  }

 private:
  static void Compute(const cuda::GemmArgs& args) {
    const std::vector<float> x = Widened(args.x, args.dtype, args.rows * args.k);
    const std::vector<float> weight = Widened(args.weight, args.dtype, args.n * args.k);
    for (int64_t row = 0; row < args.rows; ++row) {
      for (int64_t column = 0; column < args.n; ++column) {
        const float* const a = x.data() + row * args.k;
        const float* const b = weight.data() + column * args.k;
        float sum = 0.0f;
        for (int64_t i = 0; i < args.k; ++i) sum += a[i] * b[i];
        const int64_t at = row * args.n + column;
        if (args.bias != nullptr) sum += args.bias[column];
        if (args.residual != nullptr) sum += args.residual[at];
        if (args.out_dtype == DType::kF32) {
          static_cast<float*>(args.out)[at] = sum;
        } else {
          static_cast<uint16_t*>(args.out)[at] =
              args.out_dtype == DType::kF16 ? F16FromF32(sum) : BF16FromF32(sum);
        }
      }
    }
  }
  static std::vector<float> Widened(const void* matrix, DType dtype, int64_t count) {
    const auto* const from = static_cast<const uint16_t*>(matrix);
    std::vector<float> values(static_cast<size_t>(count));
    std::transform(from, from + count, values.begin(), [dtype](uint16_t bits) {
      return dtype == DType::kF16 ? F32FromF16(bits) : F32FromBF16(bits);
    });
    return values;
  }

  const bool* const fails_;
  void* workspace_ = nullptr;
};

}  // namespace

std::unique_ptr<cuda::Device> NewEmulatedDevice(const EmulatedDeviceOptions& options) {
  return std::make_unique<EmulatedDevice>(options);
}

std::unique_ptr<cuda::Gemm> NewPlainGemm(const bool* fails) { return std::make_unique<PlainGemm>(fails); }

}  // namespace orrery::testing
