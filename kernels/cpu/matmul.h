#ifndef ORRERY_KERNELS_CPU_MATMUL_H_
#define ORRERY_KERNELS_CPU_MATMUL_H_

// out[rows, columns] = epilogue(in[rows, k] * W[n, k]^T) with W packed (packed_matrix.h).
//
// Arithmetic, by dtype of W and instruction set (cpu_features.h):
//   f32, f16  activations and products in f32
//   bf16      with AMX: activations rounded to bf16, tile products accumulated in f32; below: activations
//             and products in f32
//   i8        with AMX: each row of activations as 15-bit fixed point (its largest magnitude is 16319, so an
//             error is at most 2^-15 of that), sums exact in integers; below: activations and products in
//             f32. i8 values are exact in both; their scale is applied to the sum
// A sum runs over k in ascending order in one accumulator, whatever the number of rows, the row's position
// and the number of threads: a row's result depends on that row, W and the instruction set alone, bit for
// bit (batch invariance).
//
// Up to about 32 rows a product takes as long as reading W from memory; nothing here allocates.

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/dtype.h"

namespace orrery {

// [rows, k], row r at data + r * stride elements. kF32 or kBF16.
struct MatMulInput {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t stride = 0;
};

// [rows, W.out_columns()]. kF32, or kBF16 (rounded to nearest even: bitwise what a following product with
// bf16 activations would round to itself, at half the traffic).
struct MatMulOutput {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t stride = 0;
};

// Applied in this order: sum * scale (i8) + bias, silu(gate) * up (gated W), + residual.
struct MatMulEpilogue {
  const float* bias = nullptr;      // [n] in the order of W's rows
  const float* residual = nullptr;  // [rows, W.out_columns()]; may be `out` itself when that is f32
  int64_t residual_stride = 0;
};

// Scratch for products of up to `max_rows` rows with matrices of up to `max_k`; more rows are worked off in
// blocks, so the size stops growing at 512 rows. Must be 64-byte aligned; its content means nothing between
// calls.
size_t MatMulScratchBytes(int64_t max_rows, int64_t max_k, int num_threads);

void MatMul(ThreadPool& pool, const MatMulInput& in, const PackedMatrix& weight, const MatMulOutput& out,
            const MatMulEpilogue& epilogue, void* scratch);

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_MATMUL_H_
