// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011). A draw is a pure function of (key,
// counter), so what a sequence samples depends on its seed and its position alone: not on the batch it ran
// in, not on preemption, not on the machine. The CPU and CUDA samplers compute the same function.
#ifndef ORRERY_SCHEDULER_BASE_RANDOM_H_
#define ORRERY_SCHEDULER_BASE_RANDOM_H_

#include <array>
#include <cstdint>

namespace orrery {

// The four 32-bit words of Philox4x32-10 at (key, counter).
constexpr std::array<uint32_t, 4> Philox(std::array<uint32_t, 2> key, std::array<uint32_t, 4> counter) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

// A uniform double in [0, 1) with 53 bits, from (seed, position, stream).
constexpr double UniformAt(uint64_t seed, uint64_t position, uint32_t stream = 0) {
  const auto words =
      Philox({static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
             {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), stream, 0});
  const uint64_t bits = (uint64_t{words[0]} << 32) | words[1];
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

// A seeded sequence of draws for simulators, generators and tests.
class RandomStream {
 public:
  explicit constexpr RandomStream(uint64_t seed, uint32_t stream = 0) : seed_(seed), stream_(stream) {}
  constexpr double Uniform() { return UniformAt(seed_, position_++, stream_); }
  // Uniform in [0, bound); bound > 0.
  constexpr uint64_t Below(uint64_t bound) {
    return static_cast<uint64_t>(Uniform() * static_cast<double>(bound));
  }
  constexpr uint64_t Bits() {
    const auto w =
        Philox({static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)},
               {static_cast<uint32_t>(position_), static_cast<uint32_t>(position_ >> 32), stream_, 0});
    ++position_;
    return (uint64_t{w[0]} << 32) | w[1];
  }

 private:
  uint64_t seed_;
  uint64_t position_ = 0;
  uint32_t stream_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_BASE_RANDOM_H_
