// What the emulator found wrong with a kernel.
#ifndef ORRERY_KERNELS_EMULATE_FAILURE_H_
#define ORRERY_KERNELS_EMULATE_FAILURE_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace orrery::emulate {

enum class FailureKind : uint8_t {
  kBadLaunch,      // more threads or shared memory than a block may have, or an empty grid
  kDeadlock,       // every thread that is left waits
  kDivergence,     // lanes of a warp met in different collectives
  kMisaligned,     // an address that an instruction wants aligned is not
  kNotShared,      // an address that must lie in the block's shared memory does not
  kSharedOverrun,  // bytes behind the shared memory were written
  kStackOverrun,   // a thread's variables outgrew the stack of its fiber
};

constexpr std::string_view NameOf(FailureKind kind) {
  switch (kind) {
    case FailureKind::kBadLaunch:
      return "bad launch";
    case FailureKind::kDeadlock:
      return "deadlock";
    case FailureKind::kDivergence:
      return "divergence";
    case FailureKind::kMisaligned:
      return "misaligned";
    case FailureKind::kNotShared:
      return "not shared";
    case FailureKind::kSharedOverrun:
      return "shared overrun";
    case FailureKind::kStackOverrun:
      return "stack overrun";
  }
  return "?";
}

struct Failure {
  FailureKind kind;
  std::string message;  // names block, threads and instruction
};

}  // namespace orrery::emulate

#endif  // ORRERY_KERNELS_EMULATE_FAILURE_H_
