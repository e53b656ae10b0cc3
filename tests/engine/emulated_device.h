// The CUDA backend without a GPU, for tests: kernels run on the emulator (kernels/emulate), memory of the
// device is memory of the host. Stricter than the runtime where it can be: every copy must lie in one
// allocation, and what is downloaded is not there before somebody waits for it.
#ifndef ORRERY_TESTS_ENGINE_EMULATED_DEVICE_H_
#define ORRERY_TESTS_ENGINE_EMULATED_DEVICE_H_

#include <cstddef>
#include <memory>

#include "engine/cuda/device.h"
#include "engine/cuda/gemm.h"

namespace orrery::testing {

struct EmulatedDeviceOptions {
  size_t memory_bytes = size_t{1} << 30;
  int multiprocessors = 4;
  bool records = true;            // false: recording fails
  int* graph_launches = nullptr;  // counts them
  const bool* lost = nullptr;     // while true, the device is lost for good
  // Nothing is done before somebody waits for it, and no more than that: what a copy reads too late, or a
  // result that is read too early, shows.
  bool lazy = false;
};

// For one thread: the emulator keeps its failures by thread.
std::unique_ptr<cuda::Device> NewEmulatedDevice(const EmulatedDeviceOptions& options = {});

// One product after the other, in f32.
std::unique_ptr<cuda::Gemm> NewPlainGemm(const bool* fails = nullptr);  // while true

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_ENGINE_EMULATED_DEVICE_H_
