#include "kernels/cpu/matmul.h"

#include <algorithm>
#include <cassert>
#include <cstdint>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/matmul_task.h"

namespace orrery {
namespace {

constexpr int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

const MatMulKernel& KernelFor(DType weight) {
#if defined(__x86_64__)
  const bool tiles = weight == DType::kBF16 || weight == DType::kI8;
  switch (ActiveIsa()) {
    case Isa::kAmx:
      return tiles ? kMatMulAmx : kMatMulAvx512;
    case Isa::kAvx512:
      return kMatMulAvx512;
    case Isa::kAvx2:
      return kMatMulAvx2;
    case Isa::kScalar:
      return kMatMulScalar;
  }
#endif
  static_cast<void>(weight);
  return kMatMulScalar;
}

// Few rows stream W: one panel at a time balances best. Many rows reread the activations for every chunk, so
// a chunk is as wide as leaves each thread a few of them.
int64_t ChunkPanels(int64_t rows, int64_t panels, int num_threads) {
  if (rows <= 64) return 1;
  return std::clamp<int64_t>(panels / (4 * num_threads), 1, MatMulTask::kMaxChunkPanels);
}

// Done by one thread before others have heard of it.
bool IsSmall(const MatMulTask& task) {
  constexpr int64_t kSmallBytes = 32 * 1024;
  const int64_t activations = task.in.rows * (task.weight->k() + task.weight->n()) * 4;
  return static_cast<int64_t>(task.weight->bytes()) + activations <= kSmallBytes;
}

const std::byte* Row(const void* data, DType dtype, int64_t stride, int64_t row) {
  return static_cast<const std::byte*>(data) + row * stride * static_cast<int64_t>(SizeOf(dtype));
}

}  // namespace

size_t MatMulScratchBytes(int64_t max_rows, int64_t max_k, int num_threads) {
  const auto packed_in_bytes = [&](int64_t k) {
    const int64_t rows = RoundUp(std::min(max_rows, MatMulTask::RowsFor(k)), 32);
    return rows * RoundUp(k, PackedMatrix::DepthOf(DType::kI8)) * 4 + rows * 4;
  };
  // A smaller k may take more rows.
  const int64_t packed_in = std::max(packed_in_bytes(max_k), packed_in_bytes(std::min<int64_t>(max_k, 1024)));
  return static_cast<size_t>(packed_in + num_threads * MatMulTask::kThreadScratchBytes);
}

void MatMul(ThreadPool& pool, const MatMulInput& in, const PackedMatrix& weight, const MatMulOutput& out,
            const MatMulEpilogue& epilogue, void* scratch) {
  assert(in.dtype == DType::kF32 || in.dtype == DType::kBF16);
  assert(out.dtype == DType::kF32 || out.dtype == DType::kBF16);
  assert(reinterpret_cast<uintptr_t>(scratch) % 64 == 0);
  const MatMulKernel& kernel = KernelFor(weight.dtype());
  const int64_t block = MatMulTask::RowsFor(weight.k());
  for (int64_t begin = 0; begin < in.rows; begin += block) {
    MatMulTask task;
    task.in = in;
    task.in.data = Row(in.data, in.dtype, in.stride, begin);
    task.in.rows = std::min(in.rows - begin, block);
    task.weight = &weight;
    task.out = out;
    task.out.data = const_cast<std::byte*>(Row(out.data, out.dtype, out.stride, begin));
    task.epilogue = epilogue;
    if (epilogue.residual != nullptr) task.epilogue.residual += begin * epilogue.residual_stride;
    task.thread_scratch = static_cast<std::byte*>(scratch);
    task.packed_in = task.thread_scratch + pool.num_threads() * MatMulTask::kThreadScratchBytes;
    task.chunk_panels = ChunkPanels(task.in.rows, weight.panels(), pool.num_threads());
    if (IsSmall(task)) {
      kernel.pack(task);
      kernel.multiply(task, 0);
      continue;
    }
    pool.Run([&](int thread, int) {
      kernel.pack(task);
      pool.Barrier();
      kernel.multiply(task, thread);
    });
  }
}

}  // namespace orrery
