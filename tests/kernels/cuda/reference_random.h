// The random numbers of kernels/cuda/counter_random.cuh once more, as the paper writes them.
#ifndef ORRERY_TESTS_KERNELS_CUDA_REFERENCE_RANDOM_H_
#define ORRERY_TESTS_KERNELS_CUDA_REFERENCE_RANDOM_H_

#include <array>
#include <cmath>
#include <cstdint>

namespace orrery::cuda {

// Philox4x32-10.
inline std::array<uint32_t, 4> ReferencePhilox(std::array<uint32_t, 4> x, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{x[0]} * 0xD2511F53, b = uint64_t{x[2]} * 0xCD9E8D57;
    x = {static_cast<uint32_t>(b >> 32) ^ x[1] ^ key[0], static_cast<uint32_t>(b),
         static_cast<uint32_t>(a >> 32) ^ x[3] ^ key[1], static_cast<uint32_t>(a)};
    key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
  }
  return x;
}

inline double ReferenceGumbel(uint64_t seed, uint64_t position, int id) {
  const auto words = ReferencePhilox({static_cast<uint32_t>(id / 4), static_cast<uint32_t>(position),
                                      static_cast<uint32_t>(position >> 32), 0},
                                     {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return -std::log(-std::log1p(-(words[id % 4] + 0.5) * 0x1p-32));
}

}  // namespace orrery::cuda

#endif  // ORRERY_TESTS_KERNELS_CUDA_REFERENCE_RANDOM_H_
