// AVX2 with FMA.
#include "kernels/cpu/matmul_task.h"

#if defined(__x86_64__)
namespace orrery {
namespace {

constexpr int kBytes = 32;
constexpr int kMaxRows = 4;

#include "kernels/cpu/matmul_epilogue.h"
#include "kernels/cpu/matmul_simd.h"

}  // namespace

const MatMulKernel kMatMulAvx2 = {Pack, Multiply};

}  // namespace orrery
#endif
