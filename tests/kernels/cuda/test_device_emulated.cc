#include <sys/mman.h>

#include "kernels/emulate/launch.h"
#include "tests/kernels/cuda/test_device.h"

namespace orrery::cuda::test_device {

void Vary(uint64_t test_case) {
  emulate::SetOptions(
      {.async_copies = test_case % 2 == 0 ? emulate::AsyncCopies::kEarly : emulate::AsyncCopies::kLate,
       .seed = test_case});
}

std::string TakeFailure() {
  const auto failure = emulate::TakeFailure();
  return failure ? std::string(NameOf(failure->kind)) + ": " + failure->message : "";
}

void* Reserve(size_t bytes) {
  void* const memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}
void Release(void* memory, size_t bytes) { munmap(memory, bytes); }

}  // namespace orrery::cuda::test_device
