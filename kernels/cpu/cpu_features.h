#ifndef ORRERY_KERNELS_CPU_CPU_FEATURES_H_
#define ORRERY_KERNELS_CPU_CPU_FEATURES_H_

// Which instruction set the kernels of this process use. The machine is asked once; an operator or a test
// may lower the answer, so that every path runs on the best machine too.

#include <optional>
#include <string_view>

namespace orrery {

// Each level includes those before it.
enum class Isa {
  kScalar,  // plain C++, any architecture
  kAvx2,    // AVX2, FMA, F16C
  kAvx512,  // AVX-512 F, BW, DQ, VL
  kAmx,     // AVX-512 BF16 and VBMI, AMX bf16 and i8 tiles, with the kernel's permission to use tile data
};

// "scalar", "avx2", "avx512", "amx".
std::string_view NameOf(Isa isa);
std::optional<Isa> IsaFromName(std::string_view name);

// The best level of this machine. The first call asks the operating system for AMX tile data (a request
// that holds for the whole process); a machine that refuses it reports kAvx512. Thread safe.
Isa DetectedIsa();

// The level kernels choose when a weight is packed or an operation starts: the lower of DetectedIsa() and
// the limit. Thread safe; packed weights work at every level, so the limit may change between operations.
Isa ActiveIsa();
void LimitIsa(Isa limit);

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_CPU_FEATURES_H_
