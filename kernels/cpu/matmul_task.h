#ifndef ORRERY_KERNELS_CPU_MATMUL_TASK_H_
#define ORRERY_KERNELS_CPU_MATMUL_TASK_H_

// What matmul.cc hands to the kernel of an instruction set: one block of rows of one product. Private to
// the matmul files.

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/matmul.h"

namespace orrery {

struct MatMulTask {
  // Rows worked on at once: as many as leave 2048 values of k of theirs, as bf16, in half of a 2 MiB L2 cache
  // (a weight is read again for every block of rows, but from memory only as fast as they can use it).
  static constexpr int64_t kBlockRows = 256;
  static constexpr int64_t kMaxRows = 512;  // when k <= 1024
  static constexpr int64_t RowsFor(int64_t k) { return k <= 1024 ? kMaxRows : kBlockRows; }

  static constexpr int64_t kMaxChunkPanels = 8;
  // Per thread: sums of a chunk of panels of which k is worked off in parts (two halves of them beside i8
  // weights), and two of the sums being finished.
  static constexpr int64_t kThreadScratchBytes =
      2 * kBlockRows * kMaxChunkPanels * PackedMatrix::kPanelColumns * 4 + 8 * 1024;

  MatMulInput in;  // in.rows <= RowsFor(k)
  const PackedMatrix* weight = nullptr;
  MatMulOutput out;
  MatMulEpilogue epilogue;
  std::byte* packed_in = nullptr;       // activations in the kernel's own layout, shared by the threads
  std::byte* thread_scratch = nullptr;  // kThreadScratchBytes for each thread
  int64_t chunk_panels = 1;             // panels a thread takes at a time, at most kMaxChunkPanels

  std::atomic<int64_t> next_pack{0};
  std::atomic<int64_t> next_chunk{0};
};

struct MatMulKernel {
  // Takes pieces of the activations until all are packed into task.packed_in.
  void (*pack)(MatMulTask& task);
  // After every thread has returned from pack: takes chunks of panels until none is left.
  void (*multiply)(MatMulTask& task, int thread);
};

extern const MatMulKernel kMatMulScalar;
#if defined(__x86_64__)
extern const MatMulKernel kMatMulAvx2;
extern const MatMulKernel kMatMulAvx512;
extern const MatMulKernel kMatMulAmx;  // bf16 and i8 weights
#endif

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_MATMUL_TASK_H_
