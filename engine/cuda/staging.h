// Small arrays on their way to a device and back: memory of the host with a twin on the device, handed out
// from the front, so that all arrays of a step go over in one copy. Every step in flight has memory of the
// host of its own, which copies under way read and write; on the device one twin is enough, as a step's
// copies and kernels run behind those of the step before.
#ifndef ORRERY_ENGINE_CUDA_STAGING_H_
#define ORRERY_ENGINE_CUDA_STAGING_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/cuda/device.h"
#include "scheduler/base/check.h"

namespace orrery::cuda {

// The one that is computed, and the next, so that the device need not wait for the host between them.
inline constexpr int kStepsInFlight = 2;

class Staging {
 public:
  template <typename T>
  struct Array {
    T* host = nullptr;
    T* device = nullptr;
  };

  // What an array takes of the capacity.
  template <typename T>
  static constexpr size_t BytesOf(int64_t count) {
    return (static_cast<size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
  }

  // `device` outlives this.
  absl::Status Allocate(Device& device, size_t capacity) {
    auto on_device = device.Allocate(capacity);
    if (!on_device.ok()) return on_device.status();
    for (std::unique_ptr<Buffer>& buffer : on_host_) {
      auto on_host = device.AllocateHost(capacity);
      if (!on_host.ok()) return on_host.status();
      buffer = *std::move(on_host);
    }
    device_ = &device;
    on_device_ = *std::move(on_device);
    capacity_ = capacity;
    return absl::OkStatus();
  }

  bool HasRoom(size_t bytes) const { return bytes <= capacity_ - used_; }

  // There must be room.
  template <typename T>
  Array<T> Take(int64_t count) {
    const size_t bytes = BytesOf<T>(count);
    ORRERY_CHECK(HasRoom(bytes));
    const size_t at = used_;
    used_ += bytes;
    return {.host = reinterpret_cast<T*>(host() + at),
            .device = reinterpret_cast<T*>(static_cast<std::byte*>(on_device_->data()) + at)};
  }
  template <typename T>
  const T* Put(absl::Span<const T> values) {
    const Array<T> array = Take<T>(static_cast<int64_t>(values.size()));
    std::copy(values.begin(), values.end(), array.host);
    return array.device;
  }

  // Sends the arrays taken since the last call of this or of LeaveOnDevice.
  void Upload() {
    if (used_ > sent_) {
      device_->Upload(static_cast<std::byte*>(on_device_->data()) + sent_, host() + sent_, used_ - sent_);
    }
    sent_ = used_;
  }
  // Those arrays are the device's to write.
  void LeaveOnDevice() { sent_ = used_; }
  template <typename T>
  void Download(const Array<T>& array, int64_t count) {
    device_->Download(array.host, array.device, static_cast<size_t>(count) * sizeof(T));
  }

  // The arrays of the next step, whose memory of the host is that of the step kStepsInFlight before: the
  // device must be done with that one.
  void BeginStep() {
    step_ = (step_ + 1) % on_host_.size();
    Clear();
  }
  // Anew in the same step; only behind a Synchronize.
  void Clear() { used_ = sent_ = 0; }

 private:
  static constexpr size_t kAlignment = 16;

  std::byte* host() const { return static_cast<std::byte*>(on_host_[step_]->data()); }

  Device* device_ = nullptr;
  std::unique_ptr<Buffer> on_device_;
  std::array<std::unique_ptr<Buffer>, kStepsInFlight> on_host_;
  size_t step_ = 0;
  size_t capacity_ = 0, used_ = 0, sent_ = 0;
};

}  // namespace orrery::cuda

#endif  // ORRERY_ENGINE_CUDA_STAGING_H_
