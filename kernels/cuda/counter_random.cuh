// Random numbers without state: Philox4x32-10 of J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random
// numbers: as easy as 1, 2, 3" (SC 2011). What is drawn for a token depends on the request's seed, the
// position and the token's id alone: not on the batch, the row or the device.
#ifndef ORRERY_KERNELS_CUDA_COUNTER_RANDOM_CUH_
#define ORRERY_KERNELS_CUDA_COUNTER_RANDOM_CUH_

#include <cmath>
#include <cstdint>

#include "kernels/cuda/primitives.cuh"

namespace orrery::cuda {

struct Philox {
  uint32_t words[4];
};

__device__ __forceinline__ Philox PhiloxOf(Philox counter, uint32_t key0, uint32_t key1) {
  uint32_t* const c = counter.words;
  ORRERY_UNROLL
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xd2511f53u} * c[0], product1 = uint64_t{0xcd9e8d57u} * c[2];
    c[0] = static_cast<uint32_t>(product1 >> 32) ^ c[1] ^ key0;
    c[1] = static_cast<uint32_t>(product1);
    c[2] = static_cast<uint32_t>(product0 >> 32) ^ c[3] ^ key1;
    c[3] = static_cast<uint32_t>(product0);
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  return counter;
}

// A draw from the standard Gumbel distribution for a token: argmax of logit + Gumbel is a draw from the
// softmax. -log(-log(1 - v)) with v in (0, 1): the right tail, which decides, lies where v is small and has
// all its digits.
__device__ __forceinline__ float GumbelOf(uint64_t seed, uint64_t position, int32_t id) {
  const auto token = static_cast<uint32_t>(id);
  const Philox random =
      PhiloxOf({{token / 4, static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0}},
               static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  const uint32_t word = token % 4 == 0   ? random.words[0]
                        : token % 4 == 1 ? random.words[1]
                        : token % 4 == 2 ? random.words[2]
                                         : random.words[3];
  const float v = fminf((static_cast<float>(word) + 0.5f) * 0x1p-32f, 1.0f - 0x1p-24f);
  return -logf(-log1pf(-v));
}

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_COUNTER_RANDOM_CUH_
