// Plain C++ on 16-byte vectors: what every machine runs.
#include "kernels/cpu/matmul_task.h"

namespace orrery {
namespace {

constexpr int kBytes = 16;
constexpr int kMaxRows = 2;

#include "kernels/cpu/matmul_epilogue.h"
#include "kernels/cpu/matmul_simd.h"

}  // namespace

const MatMulKernel kMatMulScalar = {Pack, Multiply};

}  // namespace orrery
