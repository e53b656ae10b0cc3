// Mistakes that a test plants in a kernel, by a template parameter, to see that the emulator finds them. What
// is served has kNone, which changes nothing.
#ifndef ORRERY_KERNELS_CUDA_FAULT_H_
#define ORRERY_KERNELS_CUDA_FAULT_H_

#include <cstdint>

namespace orrery::cuda {

enum class Fault : uint8_t {
  kNone,
  // A block's reduction.
  kReadsSumsTooEarly,
  kBarrierInBranch,
  // Decode attention.
  kWaitsForOneCopyTooFew,
  kRefillsTooEarly,
  kKeepsWeightsUntransposed,
  kSwapsValueAddress,
  kMasksOneTokenLess,
  kMergesTooEarly,
  kReadsStaleValues,
  kForgetsToRescale,
  kLeavesMergeUnwritten,
  // Prefill attention.
  kRefillsWithoutBarrier,
  kAlignsMaskTopLeft,
  kIgnoresSwizzle,
  kAttendsBeforeAllIsWidened,
};

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_FAULT_H_
