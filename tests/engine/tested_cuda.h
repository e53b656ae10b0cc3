// The CUDA device that tests of the engine run on: emulated or the machine's own, by what they are linked
// with.
#ifndef ORRERY_TESTS_ENGINE_TESTED_CUDA_H_
#define ORRERY_TESTS_ENGINE_TESTED_CUDA_H_

#include <string>
#include <vector>

#include "engine/cuda_engine.h"

namespace orrery::testing {

// Why it cannot be opened; empty where it can.
std::string WhyNoCuda();
absl::StatusOr<CudaParts> OpenTestedCuda(const EngineOptions& options);
// Of recorded steps, on all that this process opened.
int GraphLaunches();
// Of an f32 tensor on the device, which has been synchronised.
std::vector<float> ToHost(const Tensor& tensor);

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_ENGINE_TESTED_CUDA_H_
