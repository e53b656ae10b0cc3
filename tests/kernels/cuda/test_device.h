// Where the tests of CUDA kernels run: the emulator (test_device_emulated.cc) or a device (tests/gpu). Memory
// that the program allocates is the device's too, and a launch returns when its kernel has ended.
#ifndef ORRERY_TESTS_KERNELS_CUDA_TEST_DEVICE_H_
#define ORRERY_TESTS_KERNELS_CUDA_TEST_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace orrery::cuda::test_device {

// What a kernel may not count on changes with the case: the order of threads, and when copies arrive.
void Vary(uint64_t test_case);
// What went wrong since it was last asked; empty: nothing.
std::string TakeFailure();
// Memory of which little is touched; null where there is no room for it.
void* Reserve(size_t bytes);
void Release(void* memory, size_t bytes);

}  // namespace orrery::cuda::test_device

#endif  // ORRERY_TESTS_KERNELS_CUDA_TEST_DEVICE_H_
