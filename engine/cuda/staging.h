// Small arrays on their way to a device and back: memory of the host with a twin on the device, handed out
// from the front, so that all arrays of a step go over in one copy.
#ifndef ORRERY_ENGINE_CUDA_STAGING_H_
#define ORRERY_ENGINE_CUDA_STAGING_H_

#include <algorithm>
#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/cuda/device.h"
#include "scheduler/base/check.h"

namespace orrery::cuda {

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
    auto on_host = device.AllocateHost(capacity);
    if (!on_host.ok()) return on_host.status();
    device_ = &device;
    on_device_ = *std::move(on_device);
    on_host_ = *std::move(on_host);
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
    return {.host = reinterpret_cast<T*>(static_cast<std::byte*>(on_host_->data()) + at),
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
      device_->Upload(static_cast<std::byte*>(on_device_->data()) + sent_,
                      static_cast<std::byte*>(on_host_->data()) + sent_, used_ - sent_);
    }
    sent_ = used_;
  }
  // Those arrays are the device's to write.
  void LeaveOnDevice() { sent_ = used_; }
  template <typename T>
  void Download(const Array<T>& array, int64_t count) {
    device_->Download(array.host, array.device, static_cast<size_t>(count) * sizeof(T));
  }

  // Only behind a Synchronize: copies under way read the arrays.
  void Clear() { used_ = sent_ = 0; }

 private:
  static constexpr size_t kAlignment = 16;

  Device* device_ = nullptr;
  std::unique_ptr<Buffer> on_device_, on_host_;
  size_t capacity_ = 0, used_ = 0, sent_ = 0;
};

}  // namespace orrery::cuda

#endif  // ORRERY_ENGINE_CUDA_STAGING_H_
