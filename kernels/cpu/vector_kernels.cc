#include "kernels/cpu/vector_kernels.h"

namespace orrery {

namespace scalar {
extern const VectorKernels kVectorKernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const VectorKernels kVectorKernels;
}
namespace avx512 {
extern const VectorKernels kVectorKernels;
}
#endif

const VectorKernels& ActiveVectorKernels() {
#if defined(__x86_64__)
  const Isa isa = ActiveIsa();
  if (isa >= Isa::kAvx512) return avx512::kVectorKernels;
  if (isa == Isa::kAvx2) return avx2::kVectorKernels;
#endif
  return scalar::kVectorKernels;
}

}  // namespace orrery
