// The tests of kernels/cuda on a device: all memory of the program is managed, so that what they hand to
// kernels lies where both sides reach it, and launches block until their kernel has ended.
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>

#include "tests/kernels/cuda/test_device.h"

namespace orrery::cuda::test_device {
namespace {

// In front of every allocation.
struct alignas(16) Header {
  uint32_t size_class;  // of pooled ones: 2^size_class bytes with the header
  uint32_t offset;      // from the allocation's begin to what the caller got
};
constexpr uint32_t kLarge = 0xffffffffu;

// Managed allocations are slow: what is not large comes from pieces of one and is kept for reuse. Large ones
// are allocations of their own, whose ends a memory checker knows; ORRERY_TEST_POOLED_BYTES says how many
// bytes are the most that is not large.
class Memory {
 public:
  explicit Memory(size_t most_pooled) : most_pooled_(std::min(most_pooled, kMostPooled)) {}
  void* Take(size_t bytes, size_t alignment) {
    const size_t offset = std::max(alignment, sizeof(Header)), total = bytes + offset;
    uint32_t size_class = kLarge;
    std::byte* begin;
    if (total <= most_pooled_ && alignment <= sizeof(Header)) {
      size_class = static_cast<uint32_t>(std::bit_width(total - 1));
      begin = TakePooled(size_class);
    } else {
      begin = static_cast<std::byte*>(Managed(total));
    }
    new (begin + offset - sizeof(Header)) Header{size_class, static_cast<uint32_t>(offset)};
    return begin + offset;
  }
  void Give(void* memory) {
    if (memory == nullptr) return;
    const Header header = static_cast<Header*>(memory)[-1];
    std::byte* const begin = static_cast<std::byte*>(memory) - header.offset;
    // At the end of the program the runtime may be gone before the memory's owner.
    if (header.size_class == kLarge) return static_cast<void>(cudaFree(begin));
    std::lock_guard lock(mutex_);
    Free& free = *new (begin) Free{free_[header.size_class]};
    free_[header.size_class] = &free;
  }

 private:
  struct Free {
    Free* next;
  };
  static constexpr size_t kMostPooled = 1 << 20, kPiece = 64 << 20;

  static void* Managed(size_t bytes) {
    void* memory = nullptr;
    const cudaError_t error = cudaMallocManaged(&memory, bytes);
    if (error == cudaSuccess) return memory;
    std::fprintf(stderr, "%zu bytes of managed memory: %s\n", bytes, cudaGetErrorString(error));
    std::_Exit(error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver ? 77 : 1);
  }
  std::byte* TakePooled(uint32_t size_class) {
    std::lock_guard lock(mutex_);
    if (Free* const free = free_[size_class]) {
      free_[size_class] = free->next;
      return reinterpret_cast<std::byte*>(free);
    }
    const size_t bytes = size_t{1} << size_class;
    if (left_ < bytes) at_ = static_cast<std::byte*>(Managed(kPiece)), left_ = kPiece;
    left_ -= bytes;
    return std::exchange(at_, at_ + bytes);
  }

  const size_t most_pooled_;
  std::mutex mutex_;
  std::byte* at_ = nullptr;
  size_t left_ = 0;
  Free* free_[std::bit_width(kMostPooled)] = {};
};

Memory& TheMemory() {
  alignas(Memory) static std::byte storage[sizeof(Memory)];
  static Memory* const memory = [] {
    setenv("CUDA_LAUNCH_BLOCKING", "1", 1);  // the driver reads it when it starts, at the first allocation
    const char* const most = std::getenv("ORRERY_TEST_POOLED_BYTES");
    // Never destroyed: others free after us.
    return new (storage) Memory(most == nullptr ? size_t{1} << 20 : std::strtoull(most, nullptr, 10));
  }();
  return *memory;
}

}  // namespace

void Vary(uint64_t /*test_case*/) {}

std::string TakeFailure() {
  const cudaError_t run = cudaDeviceSynchronize(), launch = cudaGetLastError();
  const cudaError_t error = run != cudaSuccess ? run : launch;
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

void* Reserve(size_t bytes) {
  void* memory = nullptr;
  return cudaMallocManaged(&memory, bytes) == cudaSuccess ? memory : nullptr;
}
void Release(void* memory, size_t /*bytes*/) { cudaFree(memory); }

}  // namespace orrery::cuda::test_device

using orrery::cuda::test_device::TheMemory;

void* operator new(size_t bytes) { return TheMemory().Take(bytes, 16); }
void* operator new(size_t bytes, std::align_val_t alignment) {
  return TheMemory().Take(bytes, static_cast<size_t>(alignment));
}
void operator delete(void* memory) noexcept { TheMemory().Give(memory); }
void operator delete(void* memory, size_t) noexcept { TheMemory().Give(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { TheMemory().Give(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { TheMemory().Give(memory); }
