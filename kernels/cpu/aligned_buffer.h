#ifndef ORRERY_KERNELS_CPU_ALIGNED_BUFFER_H_
#define ORRERY_KERNELS_CPU_ALIGNED_BUFFER_H_

// Memory for weights, KV blocks, activations and scratch: aligned to cache lines, and on huge pages where it
// is large enough to profit (streaming over 4 KiB pages costs a page walk each). Move-only; not initialised.

#include <cstddef>
#include <memory>
#include <new>

namespace orrery {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;

  // Empty (data() null) when memory is short or `bytes` is 0.
  static AlignedBuffer Allocate(size_t bytes);

  std::byte* data() const { return data_.get(); }
  size_t size() const { return size_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }

 private:
  struct Free {
    Free() : alignment(std::align_val_t{64}) {}
    explicit Free(std::align_val_t value) : alignment(value) {}
    void operator()(std::byte* data) const { ::operator delete[](data, alignment); }

    std::align_val_t alignment;
  };

  std::unique_ptr<std::byte[], Free> data_;
  size_t size_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_ALIGNED_BUFFER_H_
