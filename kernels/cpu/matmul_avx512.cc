// AVX-512.
#include "kernels/cpu/matmul_task.h"

#if defined(__x86_64__)
namespace orrery {
namespace {

constexpr int kBytes = 64;
constexpr int kMaxRows = 8;

#include "kernels/cpu/matmul_epilogue.h"
#include "kernels/cpu/matmul_simd.h"

}  // namespace

const MatMulKernel kMatMulAvx512 = {Pack, Multiply};

}  // namespace orrery
#endif
