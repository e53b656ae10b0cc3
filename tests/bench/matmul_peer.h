#ifndef ORRERY_TESTS_BENCH_MATMUL_PEER_H_
#define ORRERY_TESTS_BENCH_MATMUL_PEER_H_

// The same product by another library, for comparison in one run.

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/dtype.h"

namespace orrery {

class MatMulPeer {
 public:
  virtual ~MatMulPeer() = default;
  // Builds the product for a number of rows; false when the library cannot.
  virtual bool Prepare(int64_t rows) = 0;
  // One product with the next copy of the weight.
  virtual void Run() = 0;
};

// Null when built without a peer, or when it has no product of this type. `source` is W [n, k] row-major.
std::unique_ptr<MatMulPeer> MakeMatMulPeer(const std::byte* source, DType stored, DType computed, int64_t k,
                                           int64_t n, int num_threads);

}  // namespace orrery

#endif  // ORRERY_TESTS_BENCH_MATMUL_PEER_H_
